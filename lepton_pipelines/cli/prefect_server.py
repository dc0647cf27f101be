"""The Prefect server that a user has configured: what is wrong with it, in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from lepton_pipelines.spec.errors import UserError


@contextmanager
def naming_what_is_wrong() -> Iterator[None]:
    """Turn what Prefect's client raises in the block into a UserError: not reached, not trusted, sign-in refused."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise UserError(
                f"Prefect's certificate at {PREFECT_API_URL.value()} is not trusted ({error}). Name the file of the "
                "authority that signed it in PREFECT_API_SSL_CERT_FILE."
            ) from error
        raise UserError(
            f"Prefect at {PREFECT_API_URL.value()} cannot be reached ({error}). Start it, or unset PREFECT_API_URL "
            "to run without a server."
        ) from error
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise UserError(
            f"Prefect at {PREFECT_API_URL.value()} refuses the sign-in ({error.response.status_code}). Set "
            "PREFECT_API_AUTH_STRING to user:password, or PREFECT_API_KEY to a token, as that server wants it."
        ) from error


def ask_for_an_answer() -> None:
    """See that the configured server answers and accepts the sign-in. Raises UserError before anything is started."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is None:
        return
    # Not by entering the client: that wraps what httpx says into a RuntimeError.
    with naming_what_is_wrong():
        get_client(sync_client=True).api_version()
