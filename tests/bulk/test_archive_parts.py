from bulk.archive_parts import Item, divide, mix, sample


def items(count: int) -> list[Item]:
    return [Item(f"{number:04}.dcm", "1", 100 * number) for number in range(count)]


def test_the_same_files_make_the_same_parts() -> None:
    assert list(divide(items(10), 4, "model")) == list(divide(items(10), 4, "model"))


def test_every_file_is_in_exactly_one_part() -> None:
    parts = list(divide(items(10), 4, "model"))

    assert [item for part in parts for item in part.items] == items(10)
    assert [len(part.items) for part in parts] == [4, 4, 2]


def test_another_model_gives_a_part_another_name() -> None:
    names = {next(divide(items(4), 4, identity)).name for identity in ("one", "other")}

    assert len(names) == 2


def test_a_changed_file_gives_its_part_another_name() -> None:
    changed = [Item(item.path, "2", item.num_bytes) for item in items(4)]

    assert next(divide(changed, 4, "model")).name != next(divide(items(4), 4, "model")).name


def test_parts_that_are_left_keep_their_names_after_some_were_done() -> None:
    whole = [part.name for part in divide(items(12), 4, "model")]
    rest = [part.name for part in divide(items(12)[4:], 4, "model")]

    assert rest == whole[1:]


def test_a_sample_has_each_kind_of_file_as_often_as_it_occurs() -> None:
    small = [Item(f"s{number}", "", 10) for number in range(750)]
    large = [Item(f"l{number}", "", 9000) for number in range(250)]

    chosen = sample(small + large, 200)

    assert len(set(chosen)) == 200
    assert sum(item.num_bytes == 9000 for item in chosen) == 50


def test_a_sample_of_few_files_is_all_of_them() -> None:
    assert sample(items(5), 200) == items(5)


def test_each_part_of_a_mixed_sample_has_small_and_large_files() -> None:
    mixed = mix(items(200), 25)
    parts = [mixed[start : start + 25] for start in range(0, 200, 25)]

    assert sorted(mixed) == items(200)
    for part in parts:
        sizes = [item.num_bytes for item in part]
        assert sizes == sorted(sizes)
        assert min(sizes) < 1000
        assert max(sizes) > 19000
