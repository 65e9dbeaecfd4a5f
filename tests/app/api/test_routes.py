import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image

from app.api.problems import CODES, PROBLEM_KINDS
from app.models.card import render_card
from cxr.warning_codes import WarningCode
from tests.app.serving import serving
from tests.bundles import made_metrics, write_made_bundle

pytestmark = pytest.mark.anyio


class TestModels:
    async def test_the_list_says_what_is_served(self, store: Path) -> None:
        async with serving(store) as served:
            models = (await served.client.get("/models")).json()

        assert models["default"] == "bright"
        (model,) = models["models"]
        assert model["current"]["identity"]["engine"] == "onnxruntime-cpu"
        assert model["current"]["finding"] == "brightness"
        assert model["current"]["operating_points"] == {"balanced": 0.5, "screen": 0.2}
        assert model["current"]["scope"]["views"] == ["PA", "AP"]
        assert model["current"]["metrics"] == made_metrics()

    async def test_a_refused_version_is_listed_with_its_reason(self, tmp_path: Path) -> None:
        write_made_bundle(tmp_path, "bright", 1)
        write_made_bundle(tmp_path, "bright", 2)
        (write_made_bundle(tmp_path, "bright", 3) / "golden.npz").write_bytes(b"")
        async with serving(tmp_path) as served:
            model = (await served.client.get("/models/bright")).json()
            readiness = await served.client.get("/readyz")

        assert [(entry["version"], entry["state"]) for entry in model["versions"]] == [
            (3, "refused"), (2, "current"), (1, "superseded"),
        ]  # fmt: skip
        assert model["versions"][0]["reason"]
        assert readiness.status_code == 200

    async def test_a_model_without_a_good_version_is_described_all_the_same(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "bright" / "1").mkdir(parents=True)
        async with serving(tmp_path) as served:
            model = (await served.client.get("/models/bright")).json()
            card = await served.client.get("/models/bright/card")

        assert model["current"] is None
        assert card.json()["code"] == "not_ready"

    async def test_what_a_card_tells_machines_is_not_shown_to_people(self) -> None:
        assert render_card("---\nlicense: x\n---\n\n# made\n") == "<h1>made</h1>\n"
        assert "<hr" in render_card("# made\n\n---\n\nmore\n\n---\n")

    async def test_the_card_is_a_page_in_which_nothing_runs(self, store: Path) -> None:
        async with serving(store) as served:
            card = await served.client.get("/models/bright/card")

        assert card.headers["content-type"].startswith("text/html")
        assert "<h1>bright</h1>" in card.text
        assert "<script" not in card.text
        assert "&lt;script&gt;" in card.text
        assert "Research use. Not for diagnosis." in card.text
        assert "default-src 'self'" in card.headers["content-security-policy"]

    async def test_a_version_without_a_card_says_so(self, tmp_path: Path) -> None:
        (write_made_bundle(tmp_path, "bright", 1) / "MODEL_CARD.md").unlink()
        async with serving(tmp_path) as served:
            card = await served.client.get("/models/bright/card")

        assert card.json()["code"] == "not_found"

    async def test_a_card_that_is_no_utf_8_is_shown_as_far_as_it_goes(self, tmp_path: Path) -> None:
        (write_made_bundle(tmp_path, "bright", 1) / "MODEL_CARD.md").write_bytes(
            b"# bright\n\xff\xfe by hand"
        )
        async with serving(tmp_path) as served:
            card = await served.client.get("/models/bright/card")

        assert card.status_code == 200
        assert "by hand" in card.text


class TestHealth:
    async def test_a_sound_service_is_alive_and_ready(self, store: Path) -> None:
        async with serving(store) as served:
            assert (await served.client.get("/livez")).json() == {"status": "alive"}
            assert (await served.client.get("/readyz")).json() == {"status": "ready", "notes": []}

    async def test_a_probe_may_ask_for_the_head_alone(self, store: Path) -> None:
        async with serving(store) as served:
            responses = [await served.client.head(path) for path in ("/livez", "/readyz")]

        assert [response.status_code for response in responses] == [200, 200]

    async def test_readiness_is_about_the_default_model(self, store: Path) -> None:
        async with serving(store, default_model="other") as served:
            response = await served.client.get("/readyz")

        assert response.status_code == 503
        assert "other" in response.json()["detail"]


class TestPages:
    async def test_the_samples_are_real_files(self, store: Path) -> None:
        async with serving(store) as served:
            dicom = (await served.client.get("/sample.dcm")).content
            picture = (await served.client.get("/sample.png")).content
            answers = [
                await served.client.post("/predict", content=sample) for sample in (dicom, picture)
            ]

        assert pydicom.dcmread(BytesIO(dicom)).PatientAge == "058Y"
        Image.open(BytesIO(picture)).load()
        assert [answer.status_code for answer in answers] == [200, 200]

    async def test_the_page_and_its_files_are_served(self, store: Path) -> None:
        async with serving(store) as served:
            page = await served.client.get("/")
            files = {
                name: await served.client.get(f"/{name}") for name in local_references(page.text)
            }

        assert page.status_code == 200
        assert page.headers["x-content-type-options"] == "nosniff"
        assert {name: response.status_code for name, response in files.items()} == dict.fromkeys(
            files, 200
        )

    @pytest.mark.parametrize("path", ["/", "/docs/assets/swagger-ui.css"])
    @pytest.mark.parametrize("part", ["bytes=abc", "bytes=99999999-", "bytes=0-9"])
    async def test_a_file_is_sent_whole_whatever_part_is_asked_for(
        self, store: Path, path: str, part: str
    ) -> None:
        async with serving(store) as served:
            whole = await served.client.get(path)
            answer = await served.client.get(path, headers={"range": part})

        assert (answer.status_code, answer.content) == (200, whole.content)

    async def test_a_page_is_counted_under_its_address(self, store: Path) -> None:
        async with serving(store) as served:
            await served.client.get("/docs")
            await served.client.head("/")
            metrics = (await served.client.get("/metrics")).text

        assert 'cxr_request_duration_seconds_count{route="/docs",status="200"} 1.0' in metrics
        assert 'cxr_request_duration_seconds_count{route="/",status="200"} 1.0' in metrics

    async def test_the_api_page_needs_no_other_host(self, store: Path) -> None:
        async with serving(store) as served:
            page = await served.client.get("/docs")
            files = [await served.client.get(f"/{name}") for name in local_references(page.text)]

        assert "http" not in page.text
        assert len(files) >= 4
        assert all(response.status_code == 200 for response in files)
        assert "'self'" in page.headers["content-security-policy"]


def local_references(page: str) -> set[str]:
    return set(re.findall(r'(?:src|href)="([^":#?]+)"', page))


class TestOpenapi:
    @pytest.fixture
    async def document(self, store: Path) -> dict[str, Any]:
        async with serving(store) as served:
            document: dict[str, Any] = (await served.client.get("/openapi.json")).json()
            return document

    async def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        references = [node["$ref"] for node in nodes(document) if "$ref" in node]

        assert references
        for reference in references:
            assert (
                reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
            )

    async def test_it_is_openapi_3_1_and_a_parameter_is_never_null(
        self, document: dict[str, Any]
    ) -> None:
        assert document["openapi"] == "3.1.0"
        for path in document["paths"].values():
            for operation in path.values():
                for parameter in operation.get("parameters", []):
                    assert {"type": "null"} not in list(nodes(parameter))

    async def test_every_problem_of_an_endpoint_is_documented_with_its_code(
        self, document: dict[str, Any]
    ) -> None:
        documented = set()
        for path in document["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    for code in (
                        response["content"].get("application/problem+json", {}).get("examples", {})
                    ):
                        assert PROBLEM_KINDS[code].status == int(status)
                        documented.add(code)

        assert documented == set(CODES) - {"method_not_allowed"}

    async def test_the_closed_lists_are_enumerations(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]

        assert schemas["Problem"]["properties"]["code"]["enum"] == list(CODES)
        assert set(schemas["WarningCode"]["enum"]) == set(WarningCode)
        assert schemas["ProcessingAnswer"]["properties"]["format"]["enum"] == [
            "dicom",
            "png",
            "jpeg",
        ]
        assert "percentile" in schemas["ProcessingAnswer"]["properties"]["intensity"]["enum"]

    async def test_what_wants_a_key_says_where_it_goes(self, document: dict[str, Any]) -> None:
        assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        assert document["paths"]["/predict"]["post"]["security"] == [{"key": []}, {}]
        assert "security" not in document["paths"]["/readyz"]["get"]

    async def test_both_ways_of_sending_a_file_are_documented(
        self, document: dict[str, Any]
    ) -> None:
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"]

        assert set(body) == {
            "multipart/form-data", "application/dicom", "image/png", "image/jpeg",
            "application/octet-stream",
        }  # fmt: skip


def nodes(tree: Any) -> Any:
    """Walk all objects of a document."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from nodes(branch)
