"""Events of a run reach who listens to it, and nobody else; a listener that fails does not stop a training."""

import pytest

from lepton_pipelines.organisation.progress import Notice, listening, tell

NOTICE = Notice("north", "a worker was lost")


def test_listeners_hear_their_run_only_and_only_while_they_listen():
    heard = []
    with listening("a", heard.append):
        tell("a", NOTICE)
        tell("b", NOTICE)
    tell("a", NOTICE)
    assert heard == [NOTICE]


def test_a_listener_that_fails_is_logged_and_the_others_hear(caplog):
    heard = []

    def fails(event):
        raise RuntimeError("no screen")

    with listening("a", fails), listening("a", heard.append):
        tell("a", NOTICE)
    assert heard == [NOTICE]
    assert "no screen" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_listener_may_stop_the_run_only_as_the_user_would(error):
    def stops(event):
        raise error

    with listening("a", stops), pytest.raises(error):
        tell("a", NOTICE)
