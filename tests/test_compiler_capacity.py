"""compiler.capacity: fit, compile and run agree on what fits, queues included."""

import pytest
from test_end_to_end import SHIPPED

from arch.config import CONFIGS
from base.errors import TspError
from compiler import capacity
from compiler.capacity import choose_context, fitting_context
from compiler.fit import fit
from compiler.frontend.files import read_model
from program.shape import ModelConfig

CHIPS = ("wide", "large")
NONE: frozenset[str] = frozenset()
TOO_MANY_WORDS = ModelConfig(dim=128, hidden_dim=160, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=64, vocab_size=600,
                             seq_len=128, shared_classifier=False)
"""Its weights have room on `wide`, its instructions' distinct values have not; on `large` all fits."""


def test_a_chip_whose_queues_are_too_small_is_not_recommended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capacity, "CONFIGS", {name: CONFIGS[name] for name in CHIPS})
    with pytest.raises(TspError) as error:
        choose_context(TOO_MANY_WORDS, CONFIGS["wide"], None, NONE)
    text = str(error.value)
    assert text.startswith("queue ") and "config wide has" in text and "--context" not in text
    assert text.endswith("the model fits --config large")
    assert fit(TOO_MANY_WORDS, CONFIGS["large"]).context == 128
    refused = fit(TOO_MANY_WORDS, CONFIGS["wide"])
    assert not refused.context and refused.limit in text


def test_a_context_is_shortened_until_the_queues_hold_it(monkeypatch: pytest.MonkeyPatch):
    """Queues that hold 24 positions and no more: all three agree on 24."""
    def check(placement):
        if placement.geometry.chunks * placement.geometry.config.lanes > 24:
            raise TspError("queue VXM must hold at most 9 words, not 10: use a larger config")

    monkeypatch.setattr(capacity, "check_queues", check)
    model = ModelConfig(dim=32, hidden_dim=40, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, vocab_size=100,
                        seq_len=40)
    chip = CONFIGS["ulx3s"]
    served, problem = fitting_context(model, chip, None, NONE)
    assert served == 24 == choose_context(model, chip, None, NONE) == fit(model, chip).context
    assert problem == fit(model, chip).limit == "queue VXM must hold at most 9 words, not 10: use a larger config"
    with pytest.raises(TspError, match=r"a context of 40 does not fit: queue VXM .* config or --context 24"):
        choose_context(model, chip, 40, NONE)


@pytest.mark.parametrize("scales", ["static", "dynamic", "robust"])
def test_scales_that_take_more_sram_leave_fewer_positions(scales: str):
    """A robust model has an embedding beside its classifier."""
    found = fit(read_model(SHIPPED)[0].config, CONFIGS["ulx3s"], scales=scales)
    assert bool(found.limit) == (0 < found.context < 256) == (scales == "robust")
