"""The Python SDK: a portal's REST API with the command line's verbs.

    import lepton_pipelines as lp

    platform = lp.Platform("http://127.0.0.1:8800", home="organisation")
    for product in platform.market.search("aspirates", label="malignant"):
        print(product.product, product.rows)

The examples in the docstrings are run against a real portal by the tests.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.portal import messages
from lepton_pipelines.portal.algorithm_client import Algorithms
from lepton_pipelines.portal.model_client import Models
from lepton_pipelines.portal.pool_client import Pool
from lepton_pipelines.portal.signing_in import statement
from lepton_pipelines.spec.errors import UserError

PREFIX = "/api/v1"
_Answer = TypeVar("_Answer")


class Refused(UserError):  # noqa: N818
    """The portal refused: why, in its own words. status: HTTP's number for it."""

    def __init__(self, problems: list[str], status: int) -> None:
        super().__init__(problems)
        self.status = status

    def __reduce__(self) -> tuple[type["Refused"], tuple[list[str], int]]:  # type: ignore[override]
        """Keep the status when the error travels between processes."""
        return type(self), (self.problems, self.status)


class Platform:
    """A portal, as one organisation or person uses it. Signs in at the first question; the key stays in `home`.

    url: the portal's address. home: the folder with the key (`lepton org init`). organisation: at whose stand, where a
    portal has several and it is not the own. roles: asked for; empty: all that the portal gives.

    >>> with Platform(url, home=home) as platform:
    ...     platform.whoami().rights[:2]
    [<Right.ASK: 'ask'>, <Right.DECIDE: 'decide'>]
    """

    def __init__(
        self,
        url: str,
        *,
        home: Path | str = "organisation",
        organisation: str | None = None,
        roles: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"{url} is no portal's address: write it as http://127.0.0.1:8800.")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._home = OrganisationHome(Path(home))
        self._organisation, self._roles = organisation, sorted(roles)
        self._http = httpx.Client(base_url=self.url, timeout=timeout)
        self._csrf: str | None = None
        self.market = Market(self)
        self.models = Models(self)
        self.algorithms = Algorithms(self)
        self.pool = Pool(self)
        self.runs = Runs(self)
        self.ledger = Ledger(self)

    def organisations(self) -> list[messages.Organisation]:
        """List the ledger's members, and how each stands.

        >>> [one.name for one in platform.organisations()]
        ['harbour', 'north', 'valley']
        """
        return self.get("/organisations", list[messages.Organisation])

    def whoami(self) -> messages.SignedIn:
        """Say who is signed in, and what they may do.

        >>> with Platform(url, home=home, roles=["auditor"]) as auditor:
        ...     auditor.whoami().rights
        [<Right.READ: 'read'>, <Right.VERIFY: 'verify'>]
        """
        return self.get("/session", messages.SignedIn)

    def link(self) -> str:
        """Return a link that opens a browser that is signed in, once, within two minutes."""
        return self._sign_in(browser=True).link

    def close(self) -> None:
        """Sign out."""
        if self._csrf is not None:
            try:
                self._ask("DELETE", "/session")
            except UserError:
                self._csrf = None  # the session has ended there already
        self._http.close()

    def __enter__(self) -> "Platform":
        """Use it as a context manager, which signs out at its end."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, path: str, answer: type[_Answer], **asked: Any) -> _Answer:
        """Ask for something and read the answer. asked: query; what is None is left out."""
        query = {name: value for name, value in asked.items() if value is not None}
        return TypeAdapter(answer).validate_json(self._signed_in("GET", path, params=query).content)

    def post(self, path: str, answer: type[_Answer], message: BaseModel | None = None) -> _Answer:
        """Send something and read the answer."""
        return TypeAdapter(answer).validate_json(self._send(path, message).content)

    def document(self, digest: str) -> bytes:
        """Return a document that the ledger names. digest: SHA-256, hexadecimal.

        >>> card = platform.document(platform.algorithms.show("valley/averaging", "1.0").card)
        >>> b"The average of the labels" in card
        True
        """
        from lepton_pipelines.ledger.predicate import digest_of

        found = self._signed_in("GET", f"/documents/{digest}").content
        if digest_of(found) != digest:
            raise UserError(f"the portal at {self.url} answers with another document than {digest[:16]}…")
        return found

    def tell(self, path: str, message: BaseModel) -> None:
        """Send something that has no answer."""
        self._send(path, message)

    def _send(self, path: str, message: BaseModel | None) -> httpx.Response:
        content = b"" if message is None else message.model_dump_json(exclude_none=True).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        return self._signed_in("POST", path, content=content, headers=headers)

    def _signed_in(self, method: str, path: str, **asked: Any) -> httpx.Response:
        if self._csrf is None:
            self._csrf = self._sign_in(browser=False).csrf
        try:
            return self._ask(method, path, **asked)
        except Refused as error:
            if error.status != 401:
                raise
            self._csrf = self._sign_in(browser=False).csrf  # the session ended, or the portal was started again
            return self._ask(method, path, **asked)

    def _sign_in(self, *, browser: bool) -> messages.SignedIn:
        challenge = messages.Challenge.model_validate_json(self._ask("POST", "/challenges").content)
        if challenge.address != self.url:
            raise UserError(f"the portal at {self.url} calls itself {challenge.address}: use that address.")
        name = self._home.organisation
        signed = statement(self.url, name, self._organisation or "", self._roles, challenge.nonce)
        answer = {
            "name": name,
            "organisation": self._organisation,
            "roles": self._roles,
            "nonce": challenge.nonce,
            "signature": self._home.signer().sign(signed).hex(),
            "browser": browser,
        }
        return messages.SignedIn.model_validate_json(self._ask("POST", "/sessions", json=answer).content)

    def _ask(self, method: str, path: str, **asked: Any) -> httpx.Response:
        headers = {**asked.pop("headers", {}), "X-CSRF-Token": self._csrf or ""}
        try:
            answer = self._http.request(method, PREFIX + path, headers=headers, **asked)
        except httpx.HTTPError as error:
            raise UserError(f"the portal at {self.url} does not answer ({error}). Is it running?") from error
        if answer.is_success:
            return answer
        raise Refused(_problems(answer), answer.status_code)


class Market:
    """Data products: offered, found, asked for, decided about. The verbs of `lepton market`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def publish(self, spec: Path | str) -> messages.ProductDetail:
        """Offer the data product that a file describes, or a new version of it: contract, description, terms."""
        from lepton_pipelines.market.product import ProductTerms, read_product
        from lepton_pipelines.portal.publishing_api import PublishProduct

        product, contract, _ = read_product(spec)
        told = ProductTerms.model_validate(product.model_dump(exclude={"contract"}))
        answer = PublishProduct(product=told, contract=contract)
        return self._platform.post("/products", messages.ProductDetail, answer)

    def withdraw(self, product: str, *, reason: str) -> None:
        """Offer a product no longer: runs that use it stop at their next tree."""
        self._platform.tell(f"/products/{product}/withdraw", messages.Refusal(reason=reason))

    def pull(
        self, product: str, *, licence: str | None = None, to: Path | str | None = None, cache: Path | str = "products"
    ) -> Path:
        """Fetch a shareable product's rows to this machine, with digest and licence checked; return where they lie.

        licence: refuse any other. to: copy them here, too. cache: where a file is kept, so that it is fetched once.
        """
        from lepton_pipelines.data.storage import open_url, plain_errors
        from lepton_pipelines.market.shared_rows import fetch_described
        from lepton_pipelines.spec.organisation import Storage

        found = self.show(product)
        target = None if to is None else Path(to)
        with plain_errors(product, product, Storage()):
            return fetch_described(
                product, found.croissant, found.shareable, Path(cache), open_url, licence=licence, to=target
            )

    def search(
        self,
        text: str = "",
        *,
        domain: str | None = None,
        columns: Sequence[str] = (),
        label: str | None = None,
        objective: str | None = None,
        fits: Path | str | None = None,
    ) -> list[messages.Product]:
        """Find data products. objective: what their label can be trained for, such as binary:logistic.

        fits: a contract's file; only products whose rows fit it. The file is read here and its contract is sent.

        >>> [one.product for one in platform.market.search("aspirates", columns=["mean_radius"])]
        ['harbour/patients']
        """
        if fits is not None:
            from lepton_pipelines.market.product import contract_document
            from lepton_pipelines.portal.fetching_api import SearchProducts

            wanted = SearchProducts(
                text=text,
                domain=domain,
                columns=list(columns),
                label=label,
                objective=objective,
                fits=contract_document(Path(fits)),
            )
            return self._platform.post("/products/search", list[messages.Product], wanted)
        asked = {"text": text, "domain": domain, "column": list(columns) or None, "label": label}
        return self._platform.get("/products", list[messages.Product], objective=objective, **asked)

    def show(self, product: str) -> messages.ProductDetail:
        """Show a product: what its rows are, its columns, its terms.

        >>> platform.market.show("harbour/patients").terms["runs"]
        20
        """
        return self._platform.get(f"/products/{product}", messages.ProductDetail)

    def compatible(self, *products: str) -> messages.Compatibility:
        """Say whether products can be trained on together, and what is in the way, column by column.

        >>> platform.market.compatible("harbour/patients", "harbour/patients").compatible
        True
        """
        return self._platform.get("/compatibility", messages.Compatibility, product=list(products))

    def request(
        self,
        product: str,
        *,
        purpose: str,
        algorithm: str | None = None,
        members: Sequence[str] = (),
        runs: int | None = None,
        until: date | None = None,
        message: str = "",
    ) -> messages.AskedDetail:
        """Ask a product's owner for its use; the answer holds the request's number.

        >>> asked = platform.market.request("harbour/patients", purpose="a study", runs=2)
        >>> asked.state
        'asked'
        """
        asked = messages.Ask(
            product=product,
            purpose=purpose,
            algorithm=algorithm,
            members=list(members),
            runs=runs,
            until=until,
            message=message,
        )
        return self._platform.post("/requests", messages.AskedDetail, asked)

    def grant(
        self, product: str, number: str, *, runs: int | None = None, until: date | None = None
    ) -> messages.AskedDetail:
        """Grant a request, for what was asked and within the product's terms.

        >>> asked = platform.market.request("harbour/patients", purpose="another study")
        >>> with Platform(url, home=harbour_home) as harbour:
        ...     harbour.market.grant("harbour/patients", asked.grant, runs=3).runs_allowed
        3
        """
        answer = messages.Grant(runs=runs, until=until)
        return self._platform.post(f"/requests/{product}/{number}/grant", messages.AskedDetail, answer)

    def refuse(self, product: str, number: str, *, reason: str) -> messages.AskedDetail:
        """Refuse a request."""
        answer = messages.Refusal(reason=reason)
        return self._platform.post(f"/requests/{product}/{number}/refuse", messages.AskedDetail, answer)

    def revoke(self, product: str, number: str, *, reason: str) -> messages.AskedDetail:
        """Take a grant back: a run that uses it stops at its next tree."""
        answer = messages.Refusal(reason=reason)
        return self._platform.post(f"/requests/{product}/{number}/revoke", messages.AskedDetail, answer)

    def usage(self, product: str | None = None) -> list[messages.Asked]:
        """List who asked for what, what was answered, and which runs used it."""
        return self._platform.get("/requests", list[messages.Asked], product=product)


class Runs:
    """Runs, as the ledger and the portal's own organisation know them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def search(self) -> list[messages.Run]:
        """List runs, the newest first.

        >>> [(one.run, one.state) for one in platform.runs.search()]
        [('r-2', 'open'), ('r-1', 'finished')]
        """
        return self._platform.get("/runs", list[messages.Run])

    def show(self, run: str) -> messages.RunDetail:
        """Show a run: rounds so far, scores, members.

        >>> platform.runs.show("r-1").trees
        3
        """
        return self._platform.get(f"/runs/{run}", messages.RunDetail)


class Ledger:
    """The ledger: read, proved, verified. The verbs of `lepton ledger`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def show(self, first: int | None = None, limit: int = 100) -> messages.Ledger:
        """Read entries from `first` on; the newest ones unless given.

        >>> platform.ledger.show(first=0, limit=1).entries[0].kind
        'member-admitted'
        """
        return self._platform.get("/ledger", messages.Ledger, first=first, limit=limit)

    def prove(self, index: int) -> messages.ProofOfEntry:
        """Prove that an entry is in the ledger; `proof` is the file that `lepton ledger verify` takes.

        >>> print(platform.ledger.prove(0).proof.splitlines()[0])
        c2sp.org/tlog-proof@v1
        """
        return self._platform.get(f"/ledger/{index}/proof", messages.ProofOfEntry)

    def verify(self) -> messages.Verification:
        """Have the portal recompute its whole copy now.

        >>> platform.ledger.verify().holds
        True
        """
        return self._platform.post("/ledger/verify", messages.Verification)


def _problems(answer: httpx.Response) -> list[str]:
    try:
        return messages.Problem.model_validate_json(answer.content).problems
    except ValueError:
        return [f"the portal answered {answer.status_code}."]
