from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from vitrail.data.builtin import digits


def test_digits_are_those_of_scikit_learn() -> None:
    data = digits()
    published = load_digits()
    assert len(data) == 1797
    assert data.classes == tuple("0123456789")
    assert (data.ids[0], data.ids[-1]) == ("digits/0000", "digits/1796")
    assert data.targets == published.target.tolist()
    assert data.published == {}
    sample = data.read(17)
    assert sample.image.shape == (3, 8, 8)
    expected = np.rint(published.images[17] * 255 / 16)
    assert (sample.image.numpy() == expected).all()
    assert max(int(data.read(i).image.max()) for i in range(20)) == 255
