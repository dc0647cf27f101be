"""What may pass is tried again; a mistake is not."""

import pytest

from lepton_pipelines.spec.errors import UserError
from tasks.retrying import may_pass


def caused(cause):
    error = UserError("harbour: s3://harbour/ cannot be reached.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error", [TimeoutError(), ConnectionResetError(), OSError(28, "x"), caused(ConnectionRefusedError())]
)
def test_a_network_that_is_away_is_worth_another_attempt(error):
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [UserError("north: 3 rows have label 2"), FileNotFoundError(), PermissionError(), ValueError(), caused(KeyError())],
)
def test_a_mistake_is_not(error):
    assert not may_pass(error)


def test_a_cycle_of_causes_ends():
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert not may_pass(one)
