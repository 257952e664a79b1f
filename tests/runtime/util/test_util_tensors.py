"""trivec.util on torch tensors and multi-vectors, against sentence_transformers.util."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import util as reference

from trivec import InputError, MultiVectors, SparseVector, SparseVectors, util

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch, of its own sparse tensors


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows_of(vectors: torch.Tensor) -> SparseVectors:
    found = util.normalize_embeddings(vectors.to_sparse())
    dicts = [{int(i): float(row[i]) for i in torch.nonzero(row)[:, 0]} for row in found.to_dense()]
    return SparseVectors.from_dicts(dicts, vectors.shape[1])


def test_an_older_name() -> None:
    a, b = tensor(4, 6), tensor(3, 6, seed=1)
    torch.testing.assert_close(util.pytorch_cos_sim(a, b), reference.pytorch_cos_sim(a, b))


# ---- vectors for vectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_normalized_and_cut_tensors_are_tensors_of_their_type(dtype: torch.dtype) -> None:
    for given in (tensor(5, 9).to(dtype), tensor(9).to(dtype), tensor(2, 3, 9).to(dtype)):
        found, expected = util.normalize_embeddings(given), reference.normalize_embeddings(given)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)
        cut = util.truncate_embeddings(given, 4)
        assert cut.dtype == dtype
        assert torch.equal(cut, given[..., :4])
    made = tensor(5, 9).requires_grad_()
    assert torch.equal(util.normalize_embeddings(made), reference.normalize_embeddings(made).detach())
    assert isinstance(util.normalize_embeddings(list(tensor(5, 9))), torch.Tensor)
    assert isinstance(util.truncate_embeddings(list(tensor(5, 9)), 3), torch.Tensor)


def test_sparse_tensors_stay_sparse() -> None:
    given = torch.where(tensor(5, 9) > 0, tensor(5, 9), 0).to_sparse()
    found = util.normalize_embeddings(given)
    assert found.is_sparse
    torch.testing.assert_close(found.to_dense(), reference.normalize_embeddings(given).to_dense())
    one = util.normalize_embeddings(given[2])
    assert one.is_sparse
    torch.testing.assert_close(one.to_dense(), found.to_dense()[2])
    with pytest.raises(InputError, match="embeddings must be dense vectors"):
        util.truncate_embeddings(given, 3)


@pytest.mark.parametrize("count", [1, 3, 9, 20])
def test_select_max_active_dims(count: int) -> None:
    given = tensor(6, 9)
    expected = reference.select_max_active_dims(given, count).numpy()
    array = util.select_max_active_dims(given.numpy(), count)
    assert isinstance(array, np.ndarray)
    assert_array_equal(array, expected)
    found = util.select_max_active_dims(given, count)
    assert isinstance(found, torch.Tensor)
    assert_array_equal(found, expected)
    assert_array_equal(util.select_max_active_dims(given[2], count), expected[2])
    half = util.select_max_active_dims(given.bfloat16(), count)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, reference.select_max_active_dims(given.bfloat16(), count))
    rows = util.select_max_active_dims(rows_of(torch.from_numpy(expected)), count)
    assert isinstance(rows, SparseVectors)
    assert int(np.diff(rows.indptr).max()) == min(count, 9)
    assert isinstance(util.select_max_active_dims(rows[0], count), SparseVector)
    sparse = util.select_max_active_dims(given.to_sparse(), count)
    assert sparse.is_sparse
    assert_array_equal(sparse.to_dense(), expected)


def test_select_max_active_dims_of_equal_numbers_and_of_all() -> None:
    given = np.array([[2, -2, 1, 2], [0, 0, 0, 0]], dtype=np.float32)
    assert_array_equal(util.select_max_active_dims(given, 2), [[2, -2, 0, 0], [0, 0, 0, 0]])
    assert util.select_max_active_dims(given, None) is given
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match="max_active_dims must be a positive integer"):
            util.select_max_active_dims(given, wrong)  # type: ignore[arg-type]


# ---- MaxSim ----------------------------------------------------------------------------------------------------------

FUNCTIONS = ("maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise")


def both(name: str, a: Any, b: Any, **options: Any) -> torch.Tensor:
    """The scores of sentence-transformers, which ours are equal to."""
    expected: torch.Tensor = getattr(reference, name)(a, b, **options)
    found = getattr(util, name)(a, b, **options)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_maxsim_of_texts_of_any_lengths(name: str) -> None:
    a = [tensor(t, 6, seed=t) for t in (3, 1, 5)]
    b = [tensor(t, 6, seed=t + 9) - 2 for t in (2, 7, 1)]  # many products are negative
    found = both(name, a, b)
    both(name, a, b, length_normalize=True)
    both(name, a, b, length_normalize=False, chunk_elements=10, device="cpu")
    arrays = getattr(util, name)([x.numpy() for x in a], [x.numpy() for x in b])
    assert isinstance(arrays, np.ndarray)
    assert arrays.dtype == np.float32
    assert_allclose(arrays, found, rtol=1e-6)
    ours = getattr(util, name)(*(MultiVectors.from_arrays([x.numpy() for x in side]) for side in (a, b)))
    assert_allclose(ours, found, rtol=1e-6)
    both(name, a[2], b[1])  # one text each
    both(name, [x.bfloat16().float() for x in a], [x.bfloat16().float() for x in b])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_maxsim_of_padded_texts_and_of_masks(name: str) -> None:
    lengths = torch.tensor([4, 2, 1])
    mask = torch.arange(4) < lengths[:, None]
    a, b = tensor(3, 4, 6), tensor(3, 4, 6, seed=1) - 2
    both(name, a * mask[..., None], b * mask[..., None])  # zeros are padding
    both(name, a, b, a_mask=mask.float(), b_mask=mask)
    both(name, a, b, b_mask=mask.int())
    both(name, a, b, a_mask=[row[:n] for row, n in zip(mask, lengths, strict=True)])
    both(name, list(a), list(b), b_mask=mask)
    both(name, a[0], b[0], a_mask=mask[1], b_mask=mask[1])
    both(name, a, b, b_mask=torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]]))  # a document without tokens


def test_maxsim_of_nothing() -> None:
    texts = [tensor(2, 6)]
    for a, b in (([], texts), (texts, []), ([], [])):
        assert util.maxsim(a, b).shape == (len(a), len(b))
    assert util.maxsim_pairwise([], []).shape == (0,)
    empty = [torch.zeros(0, 6)]
    assert both("maxsim", texts, empty).tolist() == [[-1e9]]
    assert both("mean_maxsim", texts, empty).tolist() == [[-5e8]]


def test_what_maxsim_refuses() -> None:
    a, b = tensor(3, 4, 6), tensor(2, 4, 6)
    with pytest.raises(InputError, match=r"a has 3 texts and b has 2. For all pairs type: maxsim"):
        util.maxsim_pairwise(a, b)
    with pytest.raises(
        InputError, match=r"b_mask must have a row for each of 2 texts, and cover 4 tokens; got 2 rows of 3"
    ):
        util.maxsim(a, b, b_mask=torch.ones(2, 3))
    with pytest.raises(InputError, match=r"a_mask must have a row for each of 3 texts"):
        util.maxsim(a, b, a_mask=torch.ones(2, 4))
    with pytest.raises(InputError, match=r"a must be \(N, T, D\), \(T, D\) or a list"):
        util.maxsim(tensor(4), b)
    with pytest.raises(InputError, match="6 and 5 cannot be compared"):
        util.maxsim(a, b[..., :5])
    with pytest.raises(InputError, match="hold NaN or infinity"):
        util.maxsim(a / 0, b)
