"""What a hub's operator sees of a run that waits, and of a port that is taken."""

import socket

import numpy as np
import pytest

from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.spec.errors import UserError


def test_whom_a_run_waits_for_and_what_it_has_moved_can_be_seen(hub_of_three):
    (before,) = hub_of_three.server.statuses()
    assert (before.state, set(before.missing)) == ("inviting", {"harbour", "north", "valley"})

    def part(sums):
        sums.wait_until_ready(60)
        return sums.sum("ones", np.ones(5000, np.int64), bound=3)

    totals = hub_of_three.everywhere(part)
    assert [int(total[0]) for total in totals] == [3, 3, 3]
    (after,) = hub_of_three.server.statuses()
    assert (after.state, after.missing) == ("running", ())
    assert after.bytes > 3 * 5000 and after.under_way
    assert set(after.silent) == {"harbour", "north", "valley"}


def test_a_port_that_is_taken_is_named_with_what_to_do_and_the_hubs_state_is_let_go(hub_of_three):
    hub_of_three.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", hub_of_three.port))
        taken.listen()
        with pytest.raises(UserError, match=rf"cannot listen at 127.0.0.1:{hub_of_three.port}.*--listen HOST:PORT"):
            HubServer(hub_of_three.hub, listen=f"127.0.0.1:{hub_of_three.port}")
    hub_of_three.serve()
