"""Senders share what serves a queue, by the cost of what they sent."""

from app.inference.fair_queue import FairQueue


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
        queue.put("slow", f"slow{number}", cost=10)
        queue.put("quick", f"quick{number}", cost=1)

    served = served_in_turn(queue, {"slow": 10, "quick": 1})

    assert served[:4] == ["quick0", "quick1", "quick2", "slow0"]  # the fourth by its age
    assert served[4] == "quick3"


def test_what_items_really_cost_decides_though_less_was_expected() -> None:
    queue = FairQueue[str](100)
    for number in range(4):
        queue.put("liar", f"liar{number}", cost=0.1)
        queue.put("honest", f"honest{number}", cost=1)

    served = served_in_turn(queue, {"liar": 10, "honest": 1})

    assert served[:3] == ["liar0", "honest0", "honest1"]


def test_a_cheap_item_comes_before_all_expensive_ones_that_wait() -> None:
    queue = FairQueue[str](100)
    for number in range(8):
        queue.put(f"crowd{number}", "bomb", cost=1.5)
    first, _ = queue.pop()
    queue.charge(first, 1.5)
    queue.put("single", "image", cost=0.1)

    assert queue.pop() == ("single", "image")


def test_a_sender_within_its_share_waits_for_one_expensive_item_at_most() -> None:
    queue = FairQueue[str](100)
    waited = []
    for number in range(8):
        queue.put(f"crowd{number}", "bomb", cost=1.5)
    for _ in range(10):
        queue.put("single", "image", cost=0.1)
        num_before = 0
        while (sender := queue.pop()[0]) != "single":
            queue.charge(sender, 1.5)
            queue.put(sender, "bomb", cost=1.5)
            num_before += 1
        queue.charge("single", 0.1)
        waited.append(num_before)

    assert max(waited) == 1


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


def test_others_are_served_no_more_before_an_item_than_its_own_sender() -> None:
    queue = FairQueue[str](100)
    for item in ("a1", "a2", "a3", "b1", "c1"):
        queue.put(item[0], item)

    assert queue.cost_before("new", 1) == 3
    assert queue.cost_before("new", 2) == 4
    assert queue.cost_before("b", 1) == 4
    assert queue.cost_before("a", 1) == 5


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
