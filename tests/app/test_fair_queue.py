"""Senders share what serves a queue, by the cost of what they sent."""

from app.fair_queue import FairQueue


def served_in_turn(queue: FairQueue[str], costs: dict[str, float]) -> list[str]:
    """Take all items out; each costs its sender what `costs` says."""
    items = []
    while queue:
        sender, item = queue.pop()
        queue.charge(sender, costs[sender])
        items.append(item)
    return items


def test_senders_of_items_of_one_cost_take_turns() -> None:
    queue = FairQueue[str](100)
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.put(item[0], item)

    served = served_in_turn(queue, {"a": 1, "b": 1, "c": 1})

    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_sends_expensive_items_has_fewer_turns() -> None:
    queue = FairQueue[str](100)
    for number in range(4):
        queue.put("slow", f"slow{number}")
        queue.put("quick", f"quick{number}")

    served = served_in_turn(queue, {"slow": 10, "quick": 1})

    assert served[:6] == ["slow0", "quick0", "quick1", "slow1", "quick2", "quick3"]


def test_a_new_sender_comes_before_all_that_were_served_while_it_was_away() -> None:
    queue = FairQueue[str](100)
    for number in range(8):
        queue.put(f"crowd{number}", "first")
        queue.put(f"crowd{number}", "second")
    for _ in range(10):  # each of them once, and two by their age
        sender, _ = queue.pop()
        queue.charge(sender, 1.5)
    queue.put("new", "only")

    assert queue.pop() == ("new", "only")


def test_idle_time_saves_nothing_up() -> None:
    queue = FairQueue[str](1000)
    for number in range(100):
        queue.put("busy", f"busy{number}")
    for _ in range(50):
        sender, _ = queue.pop()
        queue.charge(sender, 1)
    for number in range(50):
        queue.put("late", f"late{number}")

    served = served_in_turn(queue, {"busy": 1, "late": 1})

    assert abs(sum(item.startswith("late") for item in served[:20]) - 10) <= 1


def test_a_full_queue_refuses_the_newest_item_of_the_largest_sender() -> None:
    queue = FairQueue[str](3)
    for item in ("a1", "a2", "b1"):
        assert queue.put(item[0], item) is None

    assert queue.put("a", "a3") == "a3"
    assert queue.put("c", "c1") == "a2"
    assert len(queue) == 3


def test_only_as_many_items_of_others_come_before_as_the_sender_has() -> None:
    queue = FairQueue[str](100)
    for item in ("a1", "a2", "a3", "b1", "c1"):
        queue.put(item[0], item)

    assert queue.num_before("new") == 3
    assert queue.num_before("b") == 4
    assert queue.num_before("a") == 5


def test_accounts_of_senders_that_came_once_are_forgotten() -> None:
    queue = FairQueue[str](100)
    for number in range(1000):
        queue.put(f"passer-by{number}", "item")
        sender, _ = queue.pop()
        queue.charge(sender, 1)

    assert len(queue._served) <= 2


def test_a_stream_of_new_senders_does_not_keep_one_waiting_for_ever() -> None:
    queue = FairQueue[str](1000)
    for number in range(3):
        queue.put("regular", f"regular{number}")
    served = []
    for number in range(60):
        queue.put(f"passer-by{number}", "item")
        queue.put(f"passer-by{number}b", "item")
        sender, _ = queue.pop()
        queue.charge(sender, 1)
        served.append(sender)

    assert served.count("regular") == 3
