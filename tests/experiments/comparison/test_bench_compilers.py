import numpy as np
import pytest

from experiments.comparison import bench_compilers
from experiments.comparison.side_by_side import native_is_available

SIZE = bench_compilers.Size(2, 3, 4)


@pytest.mark.skipif(not native_is_available(), reason="nothing can be compiled here")
def test_both_compilers_are_timed_at_the_same_function(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph, native = (bench_compilers._fused(SIZE, "float64", compiler)() for compiler in ("graph", "native"))
    np.testing.assert_allclose(native, graph, rtol=1e-12, atol=1e-14)
    metrics = bench_compilers.bench_compilers(1, [SIZE], ["float64"])
    label = "compilers_float64_2x3x4"
    assert metrics[f"{label}_work"] == 2 * (3 * 4 + 4 + 4 * 3 + 3)
    seconds = [metrics[f"{label}_{compiler}_seconds_median"] for compiler in ("graph", "native")]
    assert metrics[f"{label}_native_speedup"] == pytest.approx(seconds[0] / seconds[1])


def test_without_a_compiler_nothing_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(bench_compilers, "native_is_available", lambda: False)
    assert bench_compilers.bench_compilers(1) == {}
    assert "C++ compiler" in capsys.readouterr().out
