"""Laws of every builder's model."""

import pytest

from tests.builders.small_models import MODELS
from tests.helpers import check_weights_begin_apart


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    make, _ = MODELS[request.param]
    return make()


def test_no_two_random_weights_begin_alike(model):
    check_weights_begin_apart(model)
