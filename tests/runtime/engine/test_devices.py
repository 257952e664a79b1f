"""Which provider runs: on machines with a GPU, with half of one, and without; fake_engine.py puts them together."""

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.fake_engine import CPU, CUDA, OPENVINO, TENSORRT, machine, session

import trivec
from trivec import InputError, ProviderError
from trivec._cli.main import main
from trivec._concurrency import placement
from trivec._engine import cuda_libraries, open_session
from trivec._engine.cuda_advice import explain
from trivec._engine.devices import Device, Provider, cuda_options, device_of, parse_device, parse_providers
from trivec._engine.session import probe_providers
from trivec._loading import choice

TEXTS = ["a cat", "the old dog ran under the red house on the hill", "a boat", "", "find the small bird"]
SHAPE_OPS = ("Shape", "Gather", "Concat")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has said nothing yet."""
    monkeypatch.setattr(choice, "_warned", set())
    monkeypatch.setattr(open_session, "cuda_count", lambda: 1)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_devices_are_read_and_written() -> None:
    assert parse_device("auto") is None
    assert [str(parse_device(name)) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda:0", "cuda:1"]
    for wrong in ("gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "tensorrt", ""):
        with pytest.raises(InputError, match="is not known"):
            parse_device(wrong)


def test_providers_are_read_as_onnxruntime_takes_them() -> None:
    options = {"device_id": 1, "trt_fp16_enable": True}
    assert parse_providers([(TENSORRT, options), [CUDA, {}], CPU]) == ((TENSORRT, options), (CUDA, {}), (CPU, {}))
    assert str(device_of(parse_providers([(TENSORRT, options), CUDA]))) == "tensorrt:1"
    assert str(device_of(parse_providers([OPENVINO]))) == "openvino"
    assert str(device_of(parse_providers([CUDA]))) == "cuda:0"
    assert device_of(parse_providers([CPU])) == Device("cpu")


@pytest.mark.parametrize(
    "wrong", [[], "CUDAExecutionProvider", [3], [(CUDA,)], [(CUDA, "x")], [CUDA, (CUDA, {})], {CUDA}]
)
def test_providers_that_are_none(wrong: Any) -> None:
    with pytest.raises(InputError, match="provider"):
        parse_providers(wrong)


# ---- CUDA that works -------------------------------------------------------------------------------------------------


def test_auto_takes_cuda_where_the_session_gets_it(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = machine(monkeypatch)
    with trivec.load(tiny_model.folder) as encoder:
        assert (encoder.device, encoder.precision) == ("cuda:0", "fp32")  # there is no fp16 here
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert engine.opened == [{CUDA: cuda_options()}]
    assert {device for device, *_ in engine.runs} == {"cuda:0"}
    assert engine.preloads == 1
    assert not caplog.records


def test_options_bound_memory_and_keep_fp32() -> None:
    assert cuda_options() == {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", "sdpa_kernel": "3"}
    assert "sdpa_kernel" not in cuda_options("padded")


def test_the_second_of_two_devices(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    engine = machine(monkeypatch, gpus=2)
    with trivec.load(tiny_folder, device="cuda:1", precision="fp32") as encoder:
        assert encoder.device == "cuda:1"
        encoder.encode(TEXTS)
    assert engine.opened[0][CUDA]["device_id"] == "1"
    assert {device for device, *_ in engine.runs} == {"cuda:1"}


# ---- CUDA that does not ----------------------------------------------------------------------------------------------


def test_cuda_that_is_not_built_in(tiny_folder: Path) -> None:
    """The real onnxruntime of this environment."""
    with pytest.raises(ProviderError, match=r"'cuda:0' needs CUDAExecutionProvider.*lacks.*trivec\[gpu\]"):
        trivec.load(tiny_folder, device="cuda", precision="fp32")


BRIDGE = "[ONNXRuntimeError] : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with error: "
GONE = "cannot open shared object file: No such file or directory"
WHY = [
    (
        f"{BRIDGE}libcublasLt.so.12: {GONE}",
        r'Lt.so.12 is missing: .* needs cuBLAS 12 \(it was built with CUDA 12.8\).*"onnxruntime-gpu\[cuda,cudnn\]"',
    ),
    (
        f"{BRIDGE}libcudnn.so.9: {GONE}",
        r'libcudnn.so.9 is missing: this onnxruntime needs cuDNN 9 .*pip install "onnxruntime-gpu\[cudnn\]"',
    ),
    (
        'Error loading "C:\\x\\onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll" which is missing.',
        r"cudnn64_9.dll is missing: this onnxruntime needs cuDNN 9",
    ),
    (
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=0 ; expr=cudaSetDevice",
        r"NVIDIA driver is older than this CUDA wants: CUDA 12 needs an NVIDIA driver from 525 on",
    ),
    ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", r"shows this process no GPU.*--gpus all"),
    ("CUDA failure 101: invalid device ordinal ; GPU=0", r"no such CUDA device. nvidia-smi -L"),
    (
        "CUDA failure 209: no kernel image is available for execution on the device",
        r"no kernels for this GPU",
    ),
    ("cuDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED ; GPU=0", r"LD_LIBRARY_PATH"),
    ("libcuda.so.1: cannot open shared object file: No such file or directory", r"comes with the NVIDIA driver"),
    ("libnvinfer.so.10: cannot open shared object file: No such file", r"TensorRT is missing"),
    ("something that no one has seen before", r"has seen before\. See what works here with: trivec doctor"),
]


@pytest.mark.parametrize(("said", "advice"), WHY)
def test_cuda_that_is_listed_but_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, said: str, advice: str
) -> None:
    machine(monkeypatch, cuda=said)
    with pytest.raises(ProviderError, match=advice) as caught:
        trivec.load(tiny_folder, device="cuda", precision="fp32")
    assert str(caught.value).startswith(f"{CUDA} does not start: {said}")


def test_a_device_index_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    machine(monkeypatch, gpus=2)
    with pytest.raises(ProviderError, match=r"must be between 0 .* There are 2 \(cuda:0 to cuda:1\)"):
        trivec.load(tiny_folder, device="cuda:2", precision="fp32")


def test_auto_says_once_why_it_takes_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, cuda=WHY[0][0])
    for _ in range(2):
        with trivec.load(tiny_model.folder) as encoder:
            assert encoder.device == "cpu"
            assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"cuda:0 is not used: {CUDA} does not start: ")
    assert "libcublasLt.so.12 is missing" in record.message


def test_a_silent_fallback_is_told_with_what_the_libraries_said(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prints = "Failed to load libcudnn.so.9: libcudnn.so.9: cannot open shared object file: No such file or directory"
    machine(monkeypatch, cuda="silent", prints=prints)
    with pytest.raises(ProviderError, match="'cuda:0' was asked for, but onnxruntime fell back to CPU") as caught:
        trivec.load(tiny_folder, device="cuda", precision="fp32")
    assert prints in str(caught.value)
    assert "needs cuDNN 9" in str(caught.value)
    assert capsys.readouterr().out == ""  # where vectors may go


def test_the_doctor_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = (
        "Failed to load libcublas.so.12: libcublas.so.12: cannot open shared object file: No such file or directory"
    )
    machine(monkeypatch, cuda="silent", prints=prints)
    assert probe_providers()[CUDA].startswith(
        f"falls back to {CPU}. libcublas.so.12 is missing: this onnxruntime needs"
    )
    machine(monkeypatch, cuda=WHY[3][0])
    assert "NVIDIA driver is older" in probe_providers()[CUDA]
    monkeypatch.setattr(open_session, "cuda_count", lambda: 0)
    machine(monkeypatch, cuda="silent")
    assert "shows this process no GPU" in probe_providers()[CUDA]
    machine(monkeypatch)
    assert probe_providers() == {CUDA: "started", CPU: "started"}


def test_a_silent_fallback_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    machine(monkeypatch, cuda="silent")
    monkeypatch.setattr(open_session, "cuda_count", lambda: None)
    with pytest.raises(ProviderError, match="driver shows this process no GPU"):
        trivec.load(tiny_folder, device="cuda", precision="fp32")


def test_libraries_of_another_version_by_what_preloading_says() -> None:
    said = "Failed to load cublasLt64_13.dll: Could not find module"
    assert explain(said, engine_cuda="13.0").startswith(
        "cublasLt64_13.dll is missing: this onnxruntime needs cuBLAS 13"
    )
    assert explain("all is well") == ""


def test_what_other_threads_print_meanwhile_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    with cuda_libraries.captured() as heard:
        print("mine")
        other = threading.Thread(target=print, args=("theirs",))
        other.start()
        other.join()
    assert heard.getvalue() == "mine\n"
    assert capsys.readouterr().out == "theirs\n"


# ---- nodes on the CPU ------------------------------------------------------------------------------------------------


def test_a_heavy_node_on_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine(monkeypatch, places=lambda op: CPU if op == "MatMul" else CUDA)
    with pytest.raises(ProviderError, match="leaves 1 MatMul of the graph's 3 nodes to the CPU"):
        trivec.load(tiny_folder, device="cuda", precision="fp32")
    with trivec.load(tiny_folder) as encoder:
        assert encoder.device == "cpu"
    assert "leaves 1 MatMul" in caplog.text


def test_shape_nodes_on_the_cpu_are_not(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    machine(monkeypatch, places=lambda op: CPU if op in SHAPE_OPS else CUDA)
    with trivec.load(tiny_folder, device="cuda", precision="fp32") as encoder:
        assert session(encoder).shares == {CUDA: 2, CPU: 1}


def test_an_onnxruntime_that_does_not_tell_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    from tests.support import fake_engine

    machine(monkeypatch)
    monkeypatch.delattr(fake_engine.FakeSession, "get_provider_graph_assignment_info")
    with trivec.load(tiny_folder, device="cuda", precision="fp32") as encoder:
        assert session(encoder).shares == {}


def test_the_real_onnxruntime_tells_every_node(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu") as encoder:
        assert session(encoder).shares == {CPU: 3}


# ---- providers by hand -----------------------------------------------------------------------------------------------


def test_options_are_handed_on_untouched(monkeypatch: pytest.MonkeyPatch, tiny_model: Any) -> None:
    engine = machine(monkeypatch, available=(TENSORRT, CUDA, CPU), places=lambda op: {"Tanh": CUDA}.get(op, TENSORRT))
    given = {"trt_fp16_enable": True, "trt_max_workspace_size": 1 << 30, "device_id": 0}
    with trivec.load(tiny_model.folder, providers=[(TENSORRT, given), CUDA]) as encoder:
        assert (encoder.device, encoder.precision) == ("tensorrt:0", "fp32")
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
        assert session(encoder).shares == {TENSORRT: 2, CUDA: 1}
    assert engine.opened == [{TENSORRT: given, CUDA: cuda_options()}]


def test_what_the_user_says_of_cuda_wins(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    engine = machine(monkeypatch, gpus=2)
    given = {"device_id": 1, "gpu_mem_limit": 2 << 30, "use_tf32": 1}
    with trivec.load(tiny_folder, providers=[(CUDA, given)], precision="fp32") as encoder:
        assert encoder.device == "cuda:1"
        encoder.encode(TEXTS)
    assert engine.opened == [{CUDA: {**cuda_options(), **given}}]
    assert {device for device, *_ in engine.runs} == {"cuda:1"}


def test_by_hand_the_cpu_may_have_heavy_nodes(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    machine(monkeypatch, places=lambda op: CPU if op == "MatMul" else CUDA)
    with trivec.load(tiny_folder, providers=[CUDA, CPU], precision="fp32") as encoder:
        assert session(encoder).shares == {CUDA: 2, CPU: 1}


def test_the_first_provider_does_not_fall_back_silently(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    machine(monkeypatch, cuda="silent")
    with pytest.raises(ProviderError, match=f"{CUDA} was asked for, but onnxruntime fell back to {CPU}"):
        trivec.load(tiny_folder, providers=[CUDA], precision="fp32")


def test_a_provider_that_runs_nothing_is_refused(tiny_folder: Path) -> None:
    """The real onnxruntime: its Azure provider opens for any graph, and takes none of these nodes."""
    with pytest.raises(ProviderError, match=r"Azure\w+ opened, but runs none of the graph's 3 nodes: 3 go to CPU"):
        trivec.load(tiny_folder, providers=["AzureExecutionProvider"])


def test_a_provider_that_runs_nothing_gives_way_to_the_next(tiny_model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What onnxruntime's wheels for the CPU list first is Azure's; a pickle names what was left of the list."""
    listed = onnxruntime.get_available_providers()
    assert listed[0] == "AzureExecutionProvider"
    for _ in range(2):
        with trivec.load(tiny_model.folder, providers=listed, threads=1) as encoder:
            assert (encoder.device, encoder.precision) == ("cpu", "fp32")
            assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
            assert session(pickle.loads(pickle.dumps(encoder))).providers == (CPU,)
    (record,) = caplog.records
    assert record.message == (
        f"AzureExecutionProvider opens, but runs nothing of {tiny_model.folder}; {CPU} is taken instead."
    )


def test_the_one_that_follows_decides_device_and_variant(monkeypatch: pytest.MonkeyPatch, tiny_model: Any) -> None:
    engine = machine(monkeypatch, available=(TENSORRT, CUDA, CPU), places=lambda _: CUDA)
    given: Any = [(TENSORRT, {"device_id": 0}), (CUDA, {"gpu_mem_limit": 1 << 30}), CPU]
    with trivec.load(tiny_model.folder, providers=given) as encoder:
        assert (encoder.device, encoder.precision) == ("cuda:0", "fp32")
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
        assert session(encoder).shares == {CUDA: 3}
    assert [list(opened) for opened in engine.opened] == [[TENSORRT, CUDA, CPU], [CUDA, CPU]]
    assert engine.opened[1][CUDA]["gpu_mem_limit"] == 1 << 30


def test_names_that_onnxruntime_does_not_know_or_have(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"'Cuda', which onnxruntime does not know. The installed .* CPUExecution"):
        trivec.load(tiny_folder, providers=["Cuda"])
    with pytest.raises(ProviderError, match=r"CoreMLExecutionProvider is not built into .* has: .*CPUExecution"):
        trivec.load(tiny_folder, providers=[("CoreMLExecutionProvider", {})])


def test_a_device_and_providers_are_one_too_many(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"device='cpu' and providers=\['CPUExecutionProvider'\] both say"):
        trivec.load(tiny_folder, device="cpu", providers=[CPU])


def test_the_cpu_by_hand_is_the_cpu(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, providers=[CPU], threads=1) as by_hand, trivec.load(tiny_folder, threads=1) as other:
        assert by_hand.device == "cpu"
        assert_array_equal(by_hand.encode(TEXTS), other.encode(TEXTS))
        assert by_hand.fingerprint == other.fingerprint


def test_variants_of_providers_by_hand() -> None:
    cpu, cuda, other = (device_of([Provider(name, {})]) for name in (CPU, CUDA, OPENVINO))
    have = ["fp32", "fp16", "int8"]
    assert choice.candidates(cuda, "auto", have, ["cpu"], "m") == [(cuda, "fp16")]
    assert choice.candidates(other, "auto", have, ["cpu"], "m") == [(other, "fp32")]
    assert choice.candidates(other, "int8", have, ["cpu"], "m") == [(other, "int8")]
    with pytest.raises(ProviderError, match="fp16 is not run on cpu"):
        choice.candidates(cpu, "fp16", have, ["cpu"], "m")


def test_a_pickle_opens_the_same_providers(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    engine = machine(monkeypatch, available=(OPENVINO, CPU))
    given = {"device_type": "GPU.1", "num_streams": 2}
    encoder = trivec.load(tiny_folder, providers=[(OPENVINO, given)], precision="fp32")
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.device == encoder.device == "openvino"
    assert engine.opened == [{OPENVINO: given}] * 2


def test_a_pool_takes_the_same_providers() -> None:
    own = Device("openvino", None)
    assert [p.device for p in placement.places_of("openvino", None, fixed=own)] == [own]
    assert [p.device for p in placement.places_of("openvino", ["openvino"] * 2, fixed=own)] == [own, own]
    with pytest.raises(InputError, match=r"loaded with providers=.*may name 'openvino' .*got \['cpu'\]"):
        placement.places_of("openvino", ["cpu"], fixed=own)


def test_workers_open_providers_given_by_hand(tiny_folder: Path) -> None:
    encoder = trivec.load(tiny_folder, providers=[CPU], threads=1)
    with encoder.start_multi_process_pool() as pool:
        assert pool.devices == ["cpu"]
        assert_array_equal(encoder.encode(TEXTS, pool=pool), encoder.encode(TEXTS))


def test_doctor_shows_each_providers_share(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(tiny_folder)]) == 0
    assert re.search(rf"default +{CPU} 3 of 3 nodes", capsys.readouterr().out)
    assert main(["doctor", str(tiny_folder), "--providers", "AzureExecutionProvider"]) == 1
    assert "is not opened: AzureExecutionProvider opened, but runs none" in capsys.readouterr().out


def test_doctor_sees_a_gpu_that_onnxruntime_cannot_use() -> None:
    from trivec._inspect.doctor import idle_gpu

    assert "2 CUDA device(s)" in str(idle_gpu({"onnxruntime": "1.31.1"}, 2))
    assert idle_gpu({"onnxruntime-gpu": "1.31.1"}, 2) is None
    assert idle_gpu({"onnxruntime": "1.31.1"}, None) is None
