"""The shared spec: the example of the documentation is read as it stands, mistakes are named by line."""

import pytest
import yaml

from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.hub import Hub
from lepton_pipelines.spec.pipeline import Pipeline, TimeSplit, parse_pipeline, read_pipeline


def test_the_documented_example_is_read_as_it_stands(folder):
    pipeline = read_pipeline(folder.path / "pipeline.yaml")
    assert pipeline.members == ["harbour", "north", "valley"]
    assert pipeline.training.rounds == 60
    assert pipeline.training.max_depth == 4
    assert pipeline.gates.worst_organisation is not None
    assert pipeline.gates.worst_organisation.limits()["auc"].min == 0.9
    assert pipeline.schedule is not None
    assert pipeline.schedule.timezone == "Europe/Berlin"
    assert pipeline.publisher == "north"
    assert pipeline.model_name == "breast-cancer"


def test_it_survives_json(folder):
    pipeline = read_pipeline(folder.path / "pipeline.yaml")
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


def test_training_takes_every_parameter_of_the_booster_flat(folder):
    fields = set(type(read_pipeline(folder.path / "pipeline.yaml").training).model_fields)
    assert set(BoosterParameters.model_fields) < fields
    assert {"label", "rounds", "early_stopping_rounds"} <= fields


def test_organisations_without_files_have_theirs_beside_the_pipeline(folder):
    pipeline = read_pipeline(folder.path / "pipeline.yaml")
    assert pipeline.organisations == {n: str(folder.path / f"{n}.yaml") for n in ("north", "harbour", "valley")}


def test_a_hub_replaces_in_process(folder):
    path = folder.change("pipeline.yaml", ("in-process ", "{hub: 'hub.example.org:7443'} "))
    pipeline = read_pipeline(path)
    assert pipeline.federation == Hub(hub="hub.example.org:7443")
    assert pipeline.organisations == ["north", "harbour", "valley"]


def test_a_split_by_time_is_told_by_its_field(folder):
    split = "split: {time: admitted, valid_from: 2016-01-01, test_from: 2016-07-01}"
    path = folder.change("pipeline.yaml", ("split: {key: patient_id, train: 0.7, valid: 0.15, test: 0.15}", split))
    assert read_pipeline(path).split == TimeSplit(time="admitted", valid_from="2016-01-01", test_from="2016-07-01")


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(folder):
    path = folder.change(
        "pipeline.yaml",
        ("max_depth: 4", "max_deph: 4"),
        ("min: 0.95", "mni: 0.95"),
        ("Europe/Berlin", "Europe/Berln"),
        ("automatically", "automaticaly"),
        ("rounds: 60", "rounds: many"),
    )
    with pytest.raises(UserError) as refused:
        read_pipeline(path)
    assert refused.value.problems == [
        "pipeline.yaml:8  training.rounds: input should be a valid integer, unable to parse string as an integer "
        "(it is 'many').",
        "pipeline.yaml:10  training.max_deph is not a parameter. Did you mean max_depth?",
        "pipeline.yaml:12  gates.auc.mni is not a limit. Did you mean min?",
        "pipeline.yaml:13  registry.promote must be 'automatically' or 'ask' (it is 'automaticaly'). "
        "Did you mean automatically?",
        'pipeline.yaml:14  schedule.timezone is "Europe/Berln", which is no time zone. Did you mean Europe/Berlin?',
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rounds: 60",
            "n_estimators: 60",
            "pipeline.yaml:8  training.n_estimators is not a parameter. Did you mean rounds?",
        ),
        ("label: malignant", "rate: 3", "pipeline.yaml:5  training.label is missing. Add it."),
        ("name: breast", "max_depth: 3\nname: breast", "max_depth is not a field. It belongs under training."),
        ("[north, harbour, valley]", "[north, harbour, north]", "pipeline.yaml:2  organisations name north twice"),
        ("[north, harbour, valley]", "[north, harbour]", "allow_two_parties: true"),
        ("[north, harbour, valley]", "[north]\nallow_two_parties: true", "must name at least two"),
        ("[north, harbour, valley]", "[north, ../etc, valley]", "organisations[1]: string should match"),
        ("publisher: north", "publisher: south", "registry.publisher south is not one of the organisations"),
        ("train: 0.7", "train: 0.8", "pipeline.yaml:11  split has train, valid and test adding up to 1.1, not 1."),
        ('"0 3 * * 1"', '"0 3 * *"', 'pipeline.yaml:14  schedule.cron is "0 3 * *"; a cron line has five fields'),
        ('"0 3 * * 1"', '"0 30 * * 1"', 'schedule.cron is "0 30 * * 1", which is no cron line'),
        (
            'cron: "0 3 * * 1"',
            "interval: 3 fortnights",
            'schedule.interval is "3 fortnights", which is no span of time',
        ),
        ('cron: "0 3 * * 1", timezone', "timezone", "schedule needs cron or interval, one of them"),
        (
            "contract.odcs",
            "${HOME}/contract.odcs",
            "contract holds ${HOME}, but environment variables are read for secrets",
        ),
        (
            "in-process ",
            "in_process ",
            "federation must be 'in-process' (it is 'in_process'). Did you mean in-process?",
        ),
        ("in-process ", "{hub: example.org} ", "pipeline.yaml:3  federation.hub: string should match"),
        ("auc: {min: 0.95}", "auc: {min: 0.95, max: 0.9}", "gates.auc has its min above its max"),
        ("gates: {auc", "gates: {auk", "gates.auk is not a gate. Did you mean auc?"),
        ("objective: binary:logistic", "objective: binary:logistics", "binary:logistic"),
    ],
)
def test_a_mistake_is_one_message_that_says_where(folder, old, new, message):
    path = folder.change("pipeline.yaml", (old, new))
    with pytest.raises(UserError) as refused:
        read_pipeline(path)
    assert message in str(refused.value)
    assert "pipeline.yaml:" in str(refused.value)


def test_a_pipeline_at_a_hub_survives_json_as_a_run_keeps_it(folder):
    pipeline = read_pipeline(folder.change("pipeline.yaml", ("in-process ", "{hub: 'hub:7443'} ")))
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("minimum_members: 4", "federation.minimum_members needs when_lost: go_on"),
        ("when_lost: go_on", "minimum_members is 3, with 3 organisations none could be lost"),
        ("when_lost: go_on, minimum_members: 2", "minimum_members below 3 lets two see each other's sums"),
    ],
)
def test_going_on_without_an_organisation_needs_enough_of_them(folder, told, problem):
    path = folder.change("pipeline.yaml", ("in-process ", f"{{hub: 'hub:7443', {told}}} "))
    with pytest.raises(UserError, match=problem):
        read_pipeline(path)


@pytest.mark.parametrize("told", ["max_depth: 0", "max_depth: 11", "max_depth: 4, grow_policy: lossguide"])
def test_padding_needs_trees_that_have_a_largest_size(folder, told):
    read = read_pipeline(folder.change("pipeline.yaml", ("in-process ", "{hub: 'hub:7443', pad_levels: true} ")))
    changed = read.model_dump(mode="json", exclude_unset=True)
    changed["training"] |= yaml.safe_load(f"{{{told}}}")
    with pytest.raises(UserError, match="pad_levels needs grow_policy: depthwise and a max_depth of 1 to 10"):
        parse_pipeline(changed)


def test_stripping_a_linear_models_node_statistics_is_refused(folder):
    told = read_pipeline(folder.change("pipeline.yaml")).model_dump(mode="json")
    told["training"] = {"algorithm": "linear", "label": told["training"]["label"], "objective": "binary:logistic"}
    told["registry"] = {"node_statistics": "strip"}
    with pytest.raises(UserError, match="node_statistics: strip is for trees"):
        parse_pipeline(told)


def test_a_comparison_with_pooled_rows_is_refused_with_a_hub(folder):
    path = folder.change(
        "pipeline.yaml",
        ("in-process ", "{hub: 'hub:7443'} "),
        ("name: breast", "comparison: {pooled: true}\nname: breast"),
    )
    with pytest.raises(UserError, match="comparison needs federation: in-process"):
        read_pipeline(path)


def test_files_of_organisations_are_refused_with_a_hub(folder):
    files = "{north: n.yaml, harbour: h.yaml, valley: v.yaml}   #"
    path = folder.change(
        "pipeline.yaml", ("in-process ", "{hub: 'hub:7443'} "), ("[north, harbour, valley]   #", files)
    )
    with pytest.raises(UserError, match="every organisation keeps its own file"):
        read_pipeline(path)


def test_two_organisations_cannot_share_a_file(folder):
    path = folder.change(
        "pipeline.yaml",
        ("[north, harbour, valley]   #", "{north: harbour.yaml, harbour: harbour.yaml, valley: harbour.yaml}   #"),
    )
    with pytest.raises(UserError, match="is the file of harbour, but the pipeline gives it to north"):
        read_pipeline(path).read_organisations()


def test_the_contract_must_have_what_the_spec_names(folder):
    path = folder.change("pipeline.yaml", ("label: malignant", "label: malignent"))
    with pytest.raises(UserError, match=r'no column "malignent". Did you mean malignant?'):
        read_pipeline(path).read_contract()


def test_the_label_of_spec_and_contract_must_agree(folder):
    path = folder.change("pipeline.yaml", ("label: malignant", "label: smoker"))
    with pytest.raises(UserError, match=r'training.label is "smoker", but contract patients marks "malignant"'):
        read_pipeline(path).read_contract()


def test_early_stopping_needs_validation_rows(folder):
    path = folder.change("pipeline.yaml", ("train: 0.7, valid: 0.15", "train: 0.85, valid: 0"))
    with pytest.raises(UserError, match="early_stopping_rounds needs validation rows"):
        read_pipeline(path).read_contract()


def test_an_invitation_carries_the_contract(folder):
    pipeline = read_pipeline(folder.path / "pipeline.yaml")
    sent = parse_pipeline(pipeline.with_contract_inside().model_dump(mode="json"))
    assert sent.read_contract() == pipeline.read_contract()
    assert sent.digest() == pipeline.digest()


def test_the_digest_does_not_depend_on_where_the_files_lie(folder, tmp_path_factory):
    other = type(folder)(tmp_path_factory.mktemp("elsewhere"))
    digests = {read_pipeline(f.path / "pipeline.yaml").digest() for f in (folder, other)}
    assert len(digests) == 1


def test_the_digest_changes_with_a_parameter_and_with_the_contract(folder):
    path = folder.path / "pipeline.yaml"
    first = read_pipeline(path).digest()
    folder.change("pipeline.yaml", ("max_depth: 4", "max_depth: 5"))
    second = read_pipeline(path).digest()
    folder.change("contract.odcs.yaml", ("maximum: 100", "maximum: 99"))
    assert len({first, second, read_pipeline(path).digest()}) == 3


def test_improvement_over_the_champion_has_a_default_by_objective(folder):
    gates = read_pipeline(folder.path / "pipeline.yaml").gates
    assert gates.required_improvement("binary:logistic") == {"auc": 0.001}
    assert gates.required_improvement("multi:softprob") == {"mlogloss": 0.001}
    assert gates.required_improvement("reg:squarederror") == {"rmse": 0.0}
    path = folder.change("pipeline.yaml", ("gates: {", "gates: {improvement: {aucpr: 0.01}, "))
    assert read_pipeline(path).gates.required_improvement("binary:logistic") == {"aucpr": 0.01}


def test_a_prefect_flow_takes_the_spec_as_a_parameter(folder):
    """Prefect builds its run form from this schema; it must come out with titles and help."""
    schema = Pipeline.model_json_schema()
    training = schema["$defs"]["Training"]["properties"]
    assert training["rounds"]["title"] == "Rounds"
    assert training["rounds"]["description"]
