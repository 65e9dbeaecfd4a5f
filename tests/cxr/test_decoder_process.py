"""The process that decodes, as its parent sees it."""

import multiprocessing

from cxr import decoder_process


def test_a_process_whose_parent_was_killed_ends_without_an_error() -> None:
    context = multiprocessing.get_context("spawn")
    pipe, far_pipe = context.Pipe()
    process = context.Process(target=decoder_process.main, args=(far_pipe, 2**30), daemon=True)
    process.start()
    far_pipe.close()
    is_started = pipe.poll(120)
    pipe.close()  # the kernel does so for a parent that was killed, with an answer still unread
    process.join(120)

    assert is_started
    assert process.exitcode == 0
