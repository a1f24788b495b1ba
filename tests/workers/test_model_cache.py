import gc
import weakref

import pytest
import torch

from heatbox.contract import Examples
from heatbox.errors import ModelNotFoundError, NotFittedError
from heatbox.models import ModelStore, make_card
from heatbox_plugins.explainers.anomaly import Anomaly
from heatbox_workers.fitting import fit_explainer
from heatbox_workers.loading import load_classifier, register
from heatbox_workers.model_cache import ModelCache
from heatbox_workers.tiny import TinyNet

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three models of the same size."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    for name in NAMES:
        card = make_card(name=name, architecture="heatbox/tiny", labels=("cat", "dog"), input_size=32)
        register(store, card, TinyNet(2).state_dict())
    return store


@pytest.fixture(scope="module")
def states(store):
    """What an explainer has learnt about the first model, three times."""
    classifier = load_classifier(store, store.find("a"))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nothing = Examples(images, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 4))
    return [
        fit_explainer(store, classifier, "anomaly", Anomaly(seed=seed), [nothing]).id for seed in (0, 1, 2)
    ]


@pytest.fixture(scope="module")
def network_bytes(store):
    """Bytes of one network, counted from the weights file's own tensors."""
    network = load_classifier(store, store.find("a")).network
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def reference(cache, *key):
    """Return a reference to a classifier's network that does not keep it alive."""
    return weakref.ref(cache.classifier(*key).network)


def test_what_was_used_is_there_again_without_loading(store):
    cache = ModelCache(store, 1 << 30)
    assert cache.classifier("a") is cache.classifier("a")


@pytest.mark.parametrize("fitting", [1, 2, 3])
def test_as_many_networks_stay_as_fit_into_the_bytes(store, network_bytes, fitting):
    cache = ModelCache(store, fitting * network_bytes)
    networks = [reference(cache, name) for name in NAMES]
    gc.collect()
    assert [network() is not None for network in networks] == [False] * (3 - fitting) + [True] * fitting
    assert cache.size == fitting * network_bytes


def test_the_least_recently_used_goes_first(store, network_bytes):
    cache = ModelCache(store, 2 * network_bytes)
    first, second = reference(cache, "a"), reference(cache, "b")
    cache.classifier("a")
    cache.classifier("c")
    gc.collect()
    assert first() is not None
    assert second() is None


@pytest.mark.parametrize("limit", [0, 1])
def test_the_last_one_stays_even_where_it_is_larger_than_the_limit(store, limit):
    cache = ModelCache(store, limit)
    assert cache.classifier("a") is cache.classifier("a")


def test_fitted_classifiers_share_the_network_and_it_counts_once(store, states, network_bytes):
    cache = ModelCache(store, 1 << 30)
    plain = cache.classifier("a")
    fitted = [cache.classifier("a", "anomaly", state) for state in states]
    assert all(one.network is plain.network for one in fitted)
    learnt = sum(value.numel() * value.element_size() for one in fitted for value in one.state.values())
    assert cache.size == network_bytes + learnt


def test_a_network_outlives_the_states_that_were_learnt_about_it(store, states, network_bytes):
    cache = ModelCache(store, 2 * network_bytes)
    fitted = cache.classifier("a", "anomaly", states[0])
    network, learnt = weakref.ref(fitted.network), weakref.ref(next(iter(fitted.state.values())))
    del fitted
    cache.classifier("b")
    gc.collect()
    assert network() is not None
    assert learnt() is None


def test_of_several_states_the_least_recently_used_goes_first(store, states):
    whole = ModelCache(store, 1 << 30)
    for state in states[:2]:
        whole.classifier("a", "anomaly", state)
    cache = ModelCache(store, whole.size)
    first, second = (cache.classifier("a", "anomaly", state) for state in states[:2])
    assert cache.classifier("a", "anomaly", states[0]) is first
    cache.classifier("a", "anomaly", states[2])
    assert cache.classifier("a", "anomaly", states[0]) is first
    assert cache.classifier("a", "anomaly", states[1]) is not second


def test_a_fitted_classifier_stays_whole_where_it_is_larger_than_the_limit(store, states):
    cache = ModelCache(store, 0)
    fitted = cache.classifier("a", "anomaly", states[0])
    assert cache.classifier("a", "anomaly", states[0]) is fitted
    assert cache.classifier("a", "anomaly", states[1]).network is fitted.network


def test_an_explainer_without_a_state_gets_the_plain_classifier(store):
    cache = ModelCache(store, 1 << 30)
    assert cache.classifier("a", "anomaly", "") is cache.classifier("a")


def test_models_whose_state_is_gone_do_not_pile_up(store, network_bytes):
    cache = ModelCache(store, network_bytes)
    for name in NAMES:
        with pytest.raises(NotFittedError):
            cache.classifier(name, "anomaly", "0123456789ab")
    assert cache.size == network_bytes


def test_what_cannot_be_loaded_is_an_error_each_time_and_leaves_the_rest(store):
    cache = ModelCache(store, 1 << 30)
    kept = cache.classifier("a")
    for _ in range(2):
        with pytest.raises(ModelNotFoundError):
            cache.classifier("gone")
        with pytest.raises(NotFittedError):
            cache.classifier("a", "anomaly", "0123456789ab")
    assert cache.classifier("a") is kept
