"""Files wherever they lie, by fsspec URL, with errors that say whose file and what to do.

S3 takes its credentials from the organisation's file (references to environment variables, a profile, or
anonymous), else from where AWS's tools take them: environment, configuration files, the machine's role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import read_secret
from lepton_pipelines.spec.organisation import Storage

# Throttling and lost connections are tried again so often, by botocore's adaptive rule, before they are an error.
_S3_ATTEMPTS = 8

_UNREACHABLE = ("EndpointConnectionError", "ConnectTimeout", "Could not connect", "Connection refused", "gaierror")

_NUMBERS_ONLY = {"301", "400", "403"}

_AWS_VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def open_filesystem(url: str, storage: Storage) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path within it.

    Raises UserError for a scheme that fsspec does not know or whose library is not installed, and for a secret
    whose environment variable is not set.
    """
    import fsspec

    scheme = urlsplit(url).scheme if "://" in url else "file"
    try:
        fsspec.get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise UserError(f"{url} cannot be opened: {error}. Use a path, s3://, or install what it needs.") from None
    options = _s3_options(storage) if scheme in {"s3", "s3a"} else {}
    if not options and storage != Storage():
        raise UserError(f"data.storage is for s3:// only, but data.url is {url}. Take data.storage out.")
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, path


def _s3_options(storage: Storage) -> dict[str, Any]:
    options: dict[str, Any] = {
        "anon": storage.anonymous,
        "config_kwargs": {"retries": {"max_attempts": _S3_ATTEMPTS, "mode": "adaptive"}},
        # A listing that is kept would hide files that came since.
        "use_listings_cache": False,
    }
    if storage.endpoint:
        options["endpoint_url"] = storage.endpoint
    if storage.region:
        options["client_kwargs"] = {"region_name": storage.region}
    if storage.profile:
        options["profile"] = storage.profile
    for option in ("key", "secret", "token"):
        if (reference := getattr(storage, option)) is not None:
            options[option] = read_secret(reference, field=f"data.storage.{option}")
    return options


def storage_options(url: str, storage: Storage) -> dict[str, Any]:
    """Return fsspec's options for a URL; none where it is not of S3, which `storage` says nothing about."""
    return _s3_options(storage) if urlsplit(url).scheme in {"s3", "s3a"} else {}


@contextmanager
def plain_errors(organisation: str, url: str, storage: Storage) -> Iterator[None]:
    """Turn what file systems raise into a UserError that names the organisation, the place and the next step."""
    try:
        yield
    except UserError as error:
        name = f"{organisation}: "
        raise UserError([p if p.startswith(name) else name + p for p in error.problems]) from error
    except Exception as error:
        cause = _said_in_full(url, storage, error)
        if (told := _explain(url, storage, cause)) is None:
            raise
        raise UserError(f"{organisation}: {told}") from error


def _said_in_full(url: str, storage: Storage, error: Exception) -> Exception:
    """Return the store's own reason: it answers a question about an object with a number, a listing with words."""
    if _aws_code(error) not in _NUMBERS_ONLY:
        return error
    filesystem, path = open_filesystem(url, storage)
    try:
        filesystem.call_s3("list_objects_v2", Bucket=path.split("/")[0], MaxKeys=1)
    except Exception as reason:  # noqa: BLE001 - whatever it is, it says more
        return reason
    return error


def _explain(url: str, storage: Storage, error: Exception) -> str | None:
    code = _aws_code(error)
    text = f"{type(error).__name__} {error}"
    source = _credentials(storage)
    if code in {"NoSuchBucket"} or (isinstance(error, FileNotFoundError) and "bucket does not exist" in text):
        return f"the bucket of {url} does not exist. Correct data.url, or make the bucket."
    if "PermanentRedirect" in f"{code} {text}" or "IllegalLocationConstraint" in f"{code} {text}":
        return f"the bucket of {url} is in another region. Set data.storage.region to the bucket's region."
    if "NoCredentials" in text or "Unable to locate credentials" in text or "PartialCredentials" in text:
        return (
            f"no credentials for {url}. Set {_AWS_VARIABLES}, name data.storage.profile, "
            "or set data.storage.anonymous: true for a public bucket."
        )
    if "ProfileNotFound" in text:
        return f"data.storage.profile {storage.profile} is not in the AWS configuration files. Correct it."
    if code in {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"} or "expired" in text:
        return f"the credentials for {url} have expired. Renew {source}."
    if code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}:
        return f"the credentials for {url} were not accepted ({code}). Correct {source}."
    if code in {"AccessDenied", "403", "AllAccessDisabled"} or isinstance(error, PermissionError):
        if storage.anonymous:
            return f"{url} is not open to anonymous readers. Take data.storage.anonymous out and give credentials."
        if "://" in url:
            return f"access to {url} is denied. Check the rights of {source}."
        return f"{url} may not be read by this user. Change its permissions."
    if isinstance(error, FileNotFoundError) or code in {"NoSuchKey", "404"}:
        return f"{url} does not exist. Correct data.url."
    if any(word in text for word in _UNREACHABLE):
        place = storage.endpoint or url
        return f"{place} cannot be reached. Check data.storage.endpoint and the network."
    if code in {"SlowDown", "Throttling", "503"}:
        return f"{url} is throttled even after {_S3_ATTEMPTS} attempts. Try again later."
    return None


def _credentials(storage: Storage) -> str:
    if storage.key is not None:
        return " and ".join(str(r)[2:-1] for r in (storage.key, storage.secret, storage.token) if r is not None)
    if storage.profile is not None:
        return f"the profile {storage.profile}"
    return f"{_AWS_VARIABLES}, or the machine's role"


def _aws_code(error: BaseException | None) -> str:
    """Return the error code of the store's answer, which fsspec keeps as the cause of its own error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        error = error.__cause__
    return ""


def open_url(url: str) -> Any:
    """Open a file for reading, from wherever fsspec reads; the environment says how the store is reached."""
    filesystem, path = open_filesystem(url, Storage())
    return filesystem.open(path, "rb")
