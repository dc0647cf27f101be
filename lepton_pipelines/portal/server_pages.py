"""Where a run's pages are at the organisation's own Prefect and MLflow, found by asking these."""

import threading
import time
from typing import Any
from urllib.parse import quote

from lepton_pipelines.portal.stand import Links

ASK_SECONDS = 2.0
KEPT_SECONDS = 20.0
_lock = threading.Lock()
_kept: dict[tuple[Links, str], tuple[float, dict[str, str]]] = {}


def pages_of(links: Links, run: str, pipeline: str) -> dict[str, str]:
    """Return links by name. A server that does not answer is linked as a whole; what was found is kept for a while."""
    key = (links, run)
    with _lock:
        if key in _kept and time.monotonic() - _kept[key][0] < KEPT_SECONDS:
            return _kept[key][1]
    found = {}
    if links.prefect:
        found["Prefect"] = _prefect(links.prefect, run) or f"{links.prefect}/dashboard"
    if links.mlflow:
        found["MLflow"] = _mlflow(links.mlflow, run, pipeline) or f"{links.mlflow}/"
    with _lock:
        if len(_kept) > 1000:
            _kept.clear()
        _kept[key] = (time.monotonic(), found)
    return found


def model_page(links: Links, model: str, version: int) -> str | None:
    """Return the page of a registered version."""
    return f"{links.mlflow}/#/models/{quote(model)}/versions/{version}" if links.mlflow else None


def _prefect(address: str, run: str) -> str | None:
    asked = {"sort": "START_TIME_DESC", "limit": 200}
    found = _ask("POST", f"{address}/api/flow_runs/filter", json=asked)
    for one in found if isinstance(found, list) else []:
        if (one.get("parameters") or {}).get("run") == run:
            return f"{address}/runs/flow-run/{one['id']}"
    return None


def _mlflow(address: str, run: str, pipeline: str) -> str | None:
    api = f"{address}/api/2.0/mlflow"
    found = _ask("GET", f"{api}/experiments/get-by-name", params={"experiment_name": pipeline})
    experiment = (found or {}).get("experiment", {}).get("experiment_id") if isinstance(found, dict) else None
    if experiment is None or "'" in run:
        return None
    asked = {"experiment_ids": [experiment], "filter": f"tags.`lepton.run_id` = '{run}'", "max_results": 1}
    answer = _ask("POST", f"{api}/runs/search", json=asked)
    runs = answer.get("runs", []) if isinstance(answer, dict) else []
    return f"{address}/#/experiments/{experiment}/runs/{runs[0]['info']['run_id']}" if runs else None


def _ask(method: str, address: str, **asked: Any) -> Any:
    """Return what a server of the organisation's own answers; None if it does not."""
    import httpx

    try:
        answer = httpx.request(method, address, timeout=ASK_SECONDS, **asked)
        return answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
