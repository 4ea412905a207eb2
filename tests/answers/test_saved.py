"""A fit in a file: what comes back, what is refused, and files of earlier versions."""

import json
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

import emjax
from emjax import EM, Finding, Gap
from emjax.answers.plain_frames import frame_of, plain_frame
from emjax.run.archive import FIT
from emjax.run.compiler import KEPT

KEY = jax.random.key(0)
X = np.array([0.1, -0.4, 0.6, 3.9, 4.4, 3.6, 4.1, 0.2])
# written by emjax 0.1.0, of `clusters` and X: never to be written again
FORMAT_1 = Path(__file__).parent / "fit_of_format_1.emjax"


def clusters(x, num=2):
    weights = numpyro.param("weights", jnp.ones(num) / num, constraint=constraints.simplex)
    loc = numpyro.sample("loc", dist.Normal(0.0, 9.0).expand([num]))
    scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)


@pytest.fixture(scope="module")
def fit():
    return EM(clusters, num_restarts=3, annealing=[2.0, 1.5], fixed={"weights"}).run(KEY, X, 2)


def test_a_loaded_fit_answers_to_the_last_bit(fit, tmp_path):
    path = tmp_path / "fit.emjax"
    finding = Finding("dead", "z", "1", "Nobody is there.", "Start elsewhere.")
    gaps = {"loc": Gap(jnp.array(np.nan), jnp.array(0.5))}
    saved = replace(fit, findings=(finding,), gaps=gaps)
    saved.save(path)
    KEPT.clear()
    loaded = emjax.load(path, clusters)
    posterior = loaded.posterior(X, 2)["z"]
    np.testing.assert_array_equal(posterior, fit.posterior()["z"])
    results = [replace(each, em=None, bound=None) for each in (loaded, saved)]
    # what is no array, such as findings, is compared as the structure of these
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), *results)
    assert loaded.em.settings.fixed == ["weights"]
    np.testing.assert_array_equal(loaded.em.settings.annealing, [2.0, 1.5])
    with pytest.raises(ValueError, match="loaded without its data"):
        loaded.posterior()
    # nor does it know them when it is saved again
    loaded.save(tmp_path / "again.emjax")
    assert emjax.load(tmp_path / "again.emjax", clusters).status is fit.status


def test_the_same_fit_is_the_same_bytes_and_holds_no_code(fit, tmp_path):
    for name in ("one", "two"):
        fit.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "one") as archive:
        words = json.loads(archive.read("fit.json"))
        for name in archive.namelist():
            assert name == "fit.json" or name.endswith(".npy")
    assert words["format"] == 1
    assert words["versions"]["jax"] == jax.__version__
    assert words["data"]["args"][0]["__specification__"] == {"shape": [8], "dtype": "float64"}


def test_data_are_saved_if_asked_for(fit, tmp_path):
    fit.save(tmp_path / "fit", data=True)
    loaded = emjax.load(tmp_path / "fit", clusters)
    np.testing.assert_array_equal(loaded.posterior()["z"], fit.posterior()["z"])


def columns(frame, group):
    loc = numpyro.param("loc", jnp.array([0.0, 3.0]))
    with numpyro.plate("rows", len(frame)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=frame["x"].to_numpy())
        numpyro.sample("group", dist.Categorical(jnp.array([[0.9, 0.1], [0.2, 0.8]])[z]), obs=group)


def test_data_frames_are_saved_with_their_names_and_categories(tmp_path):
    pandas = pytest.importorskip("pandas")
    group = pandas.Series(pandas.Categorical(["b", "a"] * 4, ["a", "b"]), name="group")
    labels = [f"p{number}" for number in range(8)]
    frame = pandas.DataFrame({"x": X, "count": np.arange(8)}, index=labels)
    frame["group"] = group.array
    fit = EM(columns, max_steps=3).run(KEY, frame, group)
    fit.save(tmp_path / "fit", data=True)
    loaded = emjax.load(tmp_path / "fit", columns)
    pandas.testing.assert_frame_equal(loaded.bound.args[0], frame)
    pandas.testing.assert_series_equal(loaded.bound.args[1], group)
    np.testing.assert_array_equal(loaded.posterior()["z"], fit.posterior()["z"])


@pytest.mark.parametrize("names", ["numbers", "twice", "levels", "named"])
def test_frames_come_back_whatever_their_columns_are_called(tmp_path, names):
    pandas = pytest.importorskip("pandas")
    columns = {
        "numbers": None,
        "twice": ["a", "a"],
        "levels": pandas.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["item", None]),
        "named": pandas.Index(["a", "b"], name="item"),
    }[names]
    index = pandas.Index([3, 5], name="day")
    frame = pandas.DataFrame(X[:4].reshape(2, 2), index=index, columns=columns)
    FIT.write(tmp_path / "frame", {"frame": plain_frame(frame)})
    pandas.testing.assert_frame_equal(frame_of(FIT.read(tmp_path / "frame")["frame"]), frame)


def test_a_program_that_takes_no_arrays_needs_none_when_it_is_loaded(tmp_path):
    def program(num):
        clusters(jnp.asarray(X), num)

    fit = EM(program, max_steps=1).run(KEY, 2)
    fit.save(tmp_path / "fit")
    loaded = emjax.load(tmp_path / "fit", program)
    assert loaded.log_likelihood_of() == fit.log_likelihood


def test_an_argument_that_is_neither_array_nor_word_is_not_saved(tmp_path):
    def program(options, x):
        clusters(x, options.num)

    options = SimpleNamespace(num=2)
    fit = EM(program, max_steps=1).run(KEY, options, X)
    with pytest.raises(
        ValueError, match=r"data=True saves arrays, .* and not this SimpleNamespace"
    ):
        fit.save(tmp_path / "fit", data=True)
    fit.save(tmp_path / "fit")
    loaded = emjax.load(tmp_path / "fit", program)
    assert loaded.log_likelihood_of(options, X) == fit.log_likelihood


def changed(**values):
    """Return the program with other statements."""

    def program(x, num=2):
        size = values.get("size", num)
        weights = numpyro.param("weights", jnp.ones(size) / size, constraint=constraints.simplex)
        loc = numpyro.sample(values.get("name", "loc"), dist.Normal(0.0, 9.0).expand([size]))
        constraint = values.get("constraint", constraints.positive)
        scale = numpyro.param("scale", 1.0, constraint=constraint)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample(values.get("latent", "z"), dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)

    return program


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        ({"name": "mean"}, "it has no parameter 'loc'; its parameter 'mean' is new"),
        ({"size": 3}, r"'loc' has shape \[3\], not \[2\].*latent 'z' has values 3, not 2"),
        ({"constraint": constraints.interval(0, 9)}, r"'scale' has constraint \[0, 9\], not \[0,"),
        ({"latent": "k"}, "it has no latent 'z'; its latent 'k' is new"),
    ],
    ids=["name", "size", "constraint", "latent"],
)
def test_another_program_is_told_from_the_one_that_was_fitted(fit, tmp_path, values, difference):
    fit.save(tmp_path / "fit")
    with pytest.raises(ValueError, match=f"another program than .* 'clusters': .*{difference}"):
        emjax.load(tmp_path / "fit", changed(**values))


def test_a_program_of_other_arguments_is_told_from_the_one_that_was_fitted(fit, tmp_path):
    fit.save(tmp_path / "fit")
    with pytest.raises(
        ValueError, match=r"not take the arguments of .*: missing a required argument: 'c'"
    ):
        emjax.load(tmp_path / "fit", lambda a, b, c: None)
    with pytest.raises(ValueError, match="shapes that were fitted: fixed names 'weights'"):
        emjax.load(tmp_path / "fit", lambda x, num: numpyro.sample("x", dist.Normal(), obs=x))


def looking(x):
    clusters(x, int(x.max() > 4) + 1)


def test_a_program_that_looks_at_its_data_is_compared_when_it_has_them(tmp_path):
    fit = EM(looking, max_steps=2).run(KEY, X)
    fit.save(tmp_path / "fit")
    loaded = emjax.load(tmp_path / "fit", looking)
    assert loaded.log_likelihood_of(X) == fit.log_likelihood
    with pytest.raises(ValueError, match=r"'loc' has shape \(1,\) in the program, not \(2,\)"):
        loaded.posterior(X[:3])


def test_settings_that_are_code_are_given_again(tmp_path):
    path, em = tmp_path / "fit", EM(clusters, m_step={"loc": optax.adam(0.1)}, max_steps=2)
    fit = em.run(KEY, X)
    fit.save(path)
    with pytest.raises(ValueError, match=r"m_step \(loc\).*emjax\.EM\(program, m_step=…\)"):
        emjax.load(path, clusters)
    assert emjax.load(path, em).em is em
    with pytest.raises(ValueError, match="made with e_step='soft', and this EM has e_step='hard'"):
        emjax.load(path, EM(clusters, e_step="hard"))


def test_what_is_no_such_file_is_refused(fit, tmp_path):
    fit.save(tmp_path / "fit")
    whole = (tmp_path / "fit").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    (tmp_path / "text").write_text("loc = 1")
    np.savez(tmp_path / "others.npz", loc=X)
    for name in ("cut", "text", "others.npz"):
        with pytest.raises(ValueError, match=r"is no file that fit\.save.* has written"):
            emjax.load(tmp_path / name, clusters)
    with zipfile.ZipFile(tmp_path / "later", "w") as archive:
        archive.writestr("fit.json", '{"format": 2, "versions": {"emjax": "9.1"}}')
    with pytest.raises(ValueError, match=r"of format 2, written by emjax 9\.1; .* up to 1\. Up"):
        emjax.load(tmp_path / "later", clusters)
    with pytest.raises(ValueError, match="takes the file first"):
        emjax.load(clusters, tmp_path / "fit")
    with pytest.raises(FileNotFoundError):
        emjax.load(tmp_path / "missing", clusters)


def test_a_fit_in_double_is_loaded_in_single(fit, tmp_path):
    fit.save(tmp_path / "fit")
    with jax.enable_x64(False):
        loaded = emjax.load(tmp_path / "fit", clusters)
        assert loaded.params["weights"].dtype == jnp.float32
        assert loaded.objective.dtype == loaded.log_likelihood.dtype == np.float64
        posterior = loaded.posterior(X, 2)["z"]
    np.testing.assert_allclose(posterior, fit.posterior()["z"], atol=1e-6)


def test_a_file_of_format_1_is_loaded():
    loaded = emjax.load(FORMAT_1, clusters)
    assert loaded.status is emjax.Status.CONVERGED
    assert loaded.restarts is not None
    np.testing.assert_allclose(loaded.log_likelihood_of(X, 2), loaded.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(np.sort(loaded.params["loc"]), [0.12, 3.98], atol=0.03)
