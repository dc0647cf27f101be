"""Who may sign in at a portal and what they may do there: roles, rights, and the file at home that gives them."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import Name, SpecModel
from lepton_pipelines.spec.yaml_file import read_model

FILE = "portal.yaml"


class Role(StrEnum):
    """What a person is at an organisation."""

    OWNER = "owner"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Right(StrEnum):
    """What a route asks for. `read` is everybody's who is signed in."""

    READ = "read"
    ASK = "ask"  # for the use of others' products
    DECIDE = "decide"  # about requests for one's own
    PUBLISH = "publish"  # offer and withdraw data products, models, algorithms, computers in the organisation's name
    PULL = "pull"  # register others' models in the own registry, ready to serve
    VERIFY = "verify"  # have the ledger recomputed, take proofs away
    RUNS = "runs"  # see one's own runs: rounds, scores, reports


RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    Role.OWNER: frozenset(Right),
    Role.ENGINEER: frozenset({Right.READ, Right.ASK, Right.PULL, Right.VERIFY, Right.RUNS}),
    Role.OPERATOR: frozenset({Right.READ, Right.RUNS}),
    Role.AUDITOR: frozenset({Right.READ, Right.VERIFY}),
}


class Person(SpecModel):
    """Someone who may sign in."""

    roles: list[Role] = Field(min_length=1, title="Roles", description="owner, engineer, operator, auditor.")
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, title="Key", description="Ed25519 key, hexadecimal; unset: the organisation's of that name."
    )

    noun: ClassVar[str] = "field"


class People(SpecModel):
    """The file `portal.yaml` beside an organisation's keys."""

    people: dict[Name, Person] = Field(title="People", description="By name: an organisation, or a person.")

    noun: ClassVar[str] = "field"


def read_people(home: OrganisationHome) -> dict[str, tuple[bytes, frozenset[Role]]]:
    """Return who may sign in: name → key and roles. Without a file: the organisation itself, with every role.

    Raises UserError if the file is wrong, or if it names another organisation whose key is not trusted here.
    """
    mine, trusted = home.organisation, home.trusted()
    known = {**trusted, mine: home.signer().public}
    path = home.folder / FILE
    if not path.is_file():
        return {mine: (known[mine], frozenset(Role))}
    found, problems = {}, []
    for name, person in read_model(People, path).people.items():
        key = bytes.fromhex(person.key) if person.key else known.get(name)
        if key is None:
            problems.append(
                f"{path}: {name} has no key here. Write key: (lepton org init prints it for a person's own folder), or "
                f"take in its request file: lepton org trust {name}.request"
            )
        elif person.key and name in known and key != known[name]:
            problems.append(f"{path}: {name} is an organisation with another key. Give the person another name.")
        else:
            found[name] = (key, frozenset(person.roles))
    if problems:
        raise UserError(problems)
    return found


def rights_of(roles: frozenset[Role]) -> frozenset[Right]:
    """Return everything that these roles may do together."""
    return frozenset(right for role in roles for right in RIGHTS[role])
