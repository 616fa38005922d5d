"""compiler.quantize.rotate: an orthogonal matrix of any size, and a model that computes the same with it."""

from dataclasses import replace

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config

from compiler.quantize.float_model import FloatModel
from compiler.quantize.rotate import hadamard, rotated, rotation


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12, 20, 24, 28, 36, 48, 60, 72, 100, 105, 288, 576])
def test_a_rotation_is_orthogonal_and_flat(size: int):
    matrix = rotation(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    assert abs(matrix).max() < 1.4143 * size**-0.5
    np.testing.assert_array_equal(matrix, rotation(size))


@pytest.mark.parametrize("size", [4, 8, 12, 16, 20, 28, 36, 44, 72, 576, 768])
def test_hadamard_matrices_are_of_signs(size: int):
    matrix = hadamard(size)
    assert matrix is not None and set(np.unique(matrix)) == {-1, 1}
    np.testing.assert_array_equal(matrix @ matrix.T, size * np.eye(size))


@pytest.mark.parametrize("size", [3, 5, 6, 10, 18])
def test_there_is_none_of_other_sizes(size: int):
    assert hadamard(size) is None


@pytest.mark.parametrize("shared", [True, False])
def test_a_rotated_model_computes_the_same(shared: bool):
    checkpoint = random_checkpoint(small_config(shared_classifier=shared), seed=5)
    turned = rotated(checkpoint)
    assert not turned.config.shared_classifier and (turned.att_norm == 1).all() and (turned.final_norm == 1).all()
    tokens = [1, 200, 17, 5]
    found, expected = (FloatModel(each).sequence_logits(tokens) for each in (turned, checkpoint))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_no_channel_of_a_rotated_residual_is_much_larger_than_the_others():
    plain = random_checkpoint(small_config(dim=48))
    outlier = plain.tok_emb.copy()
    outlier[:, 7] = 1000
    checkpoint = rotated(replace(plain, tok_emb=outlier, classifier=outlier))
    peaks = abs(checkpoint.tok_emb).max(0)
    assert peaks.max() < 1.1 * peaks.min() and peaks.max() < 200
