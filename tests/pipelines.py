"""Pipelines of scikit-learn, fitted in a process of their own, and scikit-learn's own scores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchscore.columnar.arrays import Array

ROOT = Path(__file__).parents[1]
ROWS, TRAINED = 1_200, 800
NUMBERS = ["age", "income", "visits"]
TEXTS = ["city", "plan"]


def make_frame(rows: int = ROWS) -> pd.DataFrame:
    """Returns rows of mixed columns; texts and categories beyond training's from TRAINED on."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows),
            "income": rng.lognormal(10, 1, rows).astype(np.float32),
            "visits": rng.integers(0, 50, rows),
            "city": pd.Series(rng.choice(["Rome", "Paris", "Köln"], rows), dtype=object),
            "plan": rng.choice(["free", "paid", "trial"], rows),
            "code": rng.integers(1, 5, rows),
            "is_new": rng.random(rows) > 0.5,
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "city"] = None
    frame.loc[TRAINED::5, "city"] = "Oslo"
    frame["plan"] = pd.Categorical(frame["plan"], ["paid", "free", "trial"])
    frame.loc[::13, "plan"] = np.nan
    return frame


def labels(frame: pd.DataFrame) -> Array:
    """Returns 0, 1 or 2 by the columns, with noise."""
    rng = np.random.default_rng(6)
    score = frame["visits"] / 25 + (frame["plan"] == "paid") + (frame["city"] == "Rome")
    return np.asarray(np.digitize(score + rng.normal(0, 0.4, ROWS), [1.0, 2.0]))


def of_numbers() -> dict[str, Any]:
    """Returns estimators of a frame of numbers without gaps, by name."""
    return {**_scaled(), **_trees(), **_composed(), **_transformed()}


def _scaled() -> dict[str, Any]:
    """Returns estimators behind a scaler."""
    from sklearn import linear_model as lm
    from sklearn.cluster import KMeans
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM

    hidden: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 1}
    found = {
        "logistic": lm.LogisticRegression(),
        "sgd": lm.SGDClassifier(loss="log_loss", random_state=1),
        "elastic": lm.ElasticNet(0.01),
        "huber": lm.HuberRegressor(),
        "counts": lm.PoissonRegressor(),
        "tweedie": lm.TweedieRegressor(power=1.5),
        "linear_svc": LinearSVC(),
        "svc": SVC(),
        "nu_svc": NuSVC(nu=0.1),
        "svr": SVR(),
        "one_class": OneClassSVM(nu=0.1),
        "knn": KNeighborsClassifier(),
        "knn_brute": KNeighborsRegressor(algorithm="brute"),
        "knn_ball": KNeighborsRegressor(algorithm="ball_tree", p=1),
        "lof": LocalOutlierFactor(novelty=True),
        "mlp": MLPClassifier(**hidden),
        "mlp_regressor": MLPRegressor(**hidden),
        "kmeans": KMeans(3, n_init=1, random_state=1),
        "mixture": GaussianMixture(2, random_state=1),
        "process": GaussianProcessRegressor(alpha=0.5, optimizer=None),
    }
    return {name: make_pipeline(StandardScaler(), each) for name, each in found.items()}


def _trees() -> dict[str, Any]:
    """Returns trees, alone and together."""
    from sklearn import ensemble as en
    from sklearn.tree import DecisionTreeClassifier

    few: dict[str, Any] = {"n_estimators": 5, "random_state": 1}
    return {
        "forest": en.RandomForestClassifier(**few, n_jobs=2),
        "forest_regressor": en.RandomForestRegressor(**few),
        "extra": en.ExtraTreesClassifier(**few),
        "boosting": en.GradientBoostingClassifier(**few),
        "boosting_regressor": en.GradientBoostingRegressor(**few, loss="huber"),
        "histogram": en.HistGradientBoostingRegressor(max_iter=5),
        "ada": en.AdaBoostClassifier(**few),
        "bagging": en.BaggingClassifier(**few, max_features=2),
        "isolation": en.IsolationForest(**few, max_features=2),
        "tree": DecisionTreeClassifier(max_depth=4),
    }


def _composed() -> dict[str, Any]:
    """Returns linear and Bayesian models, and those that are made of several."""
    from sklearn import discriminant_analysis as da
    from sklearn import linear_model as lm
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.ensemble import StackingClassifier, VotingClassifier, VotingRegressor
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import BernoulliNB, GaussianNB
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    pair = [("a", lm.LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]
    return {
        "ridge": lm.Ridge(),
        "bayesian": lm.BayesianRidge(),
        "ridge_classifier": lm.RidgeClassifier(),
        "bayes": GaussianNB(),
        "bernoulli": BernoulliNB(binarize=20),
        "lda": da.LinearDiscriminantAnalysis(),
        "qda": da.QuadraticDiscriminantAnalysis(),
        "calibrated": CalibratedClassifierCV(DecisionTreeClassifier(max_depth=3), cv=2),
        "isotonic": CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
        "stacking": StackingClassifier(pair, cv=2),
        "voting": VotingClassifier(pair, voting="soft"),
        "voting_regressor": VotingRegressor(
            [("a", lm.Ridge()), ("b", DecisionTreeRegressor(max_depth=3))]
        ),
        "one_vs_rest": OneVsRestClassifier(lm.LogisticRegression()),
        "pls": PLSRegression(2),
        "log_target": TransformedTargetRegressor(lm.Ridge(), func=np.log1p, inverse_func=np.expm1),
    }


def _transformed() -> dict[str, Any]:
    """Returns pipelines with each kind of transformer."""
    from sklearn import feature_selection as fs
    from sklearn import preprocessing as pp
    from sklearn.decomposition import PCA, TruncatedSVD
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import FeatureUnion, make_pipeline

    both = FeatureUnion([("a", PCA(2)), ("b", TruncatedSVD(2, random_state=1))])
    chosen = fs.SelectFromModel(LogisticRegression())
    steps: dict[str, list[Any]] = {
        "log": [pp.FunctionTransformer(np.log1p), pp.StandardScaler()],
        "polynomial": [pp.StandardScaler(), pp.PolynomialFeatures(2), pp.SplineTransformer()],
        "reduced": [pp.StandardScaler(), pp.PolynomialFeatures(3), PCA(5)],
        "scalers": [pp.RobustScaler(), pp.MinMaxScaler(), pp.MaxAbsScaler()],
        "power": [pp.PowerTransformer()],
        "quantile": [pp.QuantileTransformer(n_quantiles=20), pp.Normalizer()],
        "bins": [pp.KBinsDiscretizer()],
        "selected": [fs.SelectKBest(k=2), pp.StandardScaler()],
        "chosen": [pp.StandardScaler(), chosen],
        "eliminated": [fs.RFE(Ridge(), n_features_to_select=2)],
        "kernel": [pp.StandardScaler(), Nystroem(n_components=20)],
        "union": [pp.StandardScaler(), both],
    }
    return {name: make_pipeline(*each, Ridge()) for name, each in steps.items()}


def of_frames() -> dict[str, Any]:
    """Returns pipelines of mixed columns with gaps, by name."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import KNNImputer, SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import (
        OneHotEncoder,
        OrdinalEncoder,
        StandardScaler,
        TargetEncoder,
    )

    numbers = (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS)
    ignoring = OneHotEncoder(handle_unknown="ignore")
    coded = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), ignoring)
    return {
        "usual": make_pipeline(
            make_column_transformer(numbers, (ignoring, TEXTS)), LogisticRegression()
        ),
        "filled": make_pipeline(
            make_column_transformer(numbers, (filled, TEXTS)), LogisticRegression()
        ),
        "rare": make_pipeline(
            make_column_transformer(
                numbers,
                (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=240), TEXTS),
            ),
            LogisticRegression(),
        ),
        "strict": make_pipeline(
            make_column_transformer(numbers, (OneHotEncoder(), ["city", "code"])),
            LogisticRegression(),
        ),
        "coded": make_pipeline(
            make_column_transformer(numbers, (coded, [*TEXTS, "code"]), remainder="passthrough"),
            RandomForestClassifier(5, random_state=1),
        ),
        "target": make_pipeline(
            make_column_transformer((TargetEncoder(random_state=1), TEXTS), remainder="drop"),
            StandardScaler(),
            LogisticRegression(),
        ),
        "places": make_pipeline(
            make_column_transformer(
                (KNNImputer(), [0, 1, 2]), (ignoring, make_column_selector(dtype_include=object))
            ),
            Ridge(),
        ),
        "categories": HistGradientBoostingClassifier(max_iter=5, random_state=1),
        "indicated": make_pipeline(
            make_column_transformer((SimpleImputer(add_indicator=True), NUMBERS)),
            StandardScaler(),
            Ridge(),
        ),
    }


def own_scores(model: Any, rows: Any) -> Array:
    """Returns what scikit-learn's own call makes of rows: as people call it."""
    last = model[-1] if hasattr(model, "steps") else model
    if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
        found = np.asarray(model.predict_proba(rows))
        return found[:, 1] if found.shape[1] == 2 else found
    if hasattr(model, "score_samples") and not hasattr(last, "weights_"):
        return np.asarray(model.score_samples(rows))
    if hasattr(model, "classes_") and hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(rows))
    return np.asarray(model.predict(rows))


def rows_for(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows that a pipeline was trained on: numbers alone have no gaps."""
    if name == "categories":
        known = ["Köln", "Paris", "Rome"]
        city = frame["city"].where(frame["city"].isin(known))
        return frame.assign(city=pd.Categorical(city, known))
    if name == "strict":
        # Its encoder refuses what it does not know, so there is none of it to compare.
        return frame.assign(city=frame["city"].where(frame["city"] != "Oslo", "Rome"))
    return frame if name in FRAMES else frame[NUMBERS].fillna({"age": 40.0})


def targets_for(name: str, y: Array) -> Array:
    """Returns what a pipeline learns: three classes, two, texts, or positive numbers."""
    if name in ("forest", "usual", "svc", "mlp", "boosting"):
        return y
    if name in ("coded", "logistic"):
        return np.where(y > 0, "yes", "no")
    return np.asarray((y > 0).astype(int) + (name == "tweedie"))


def fit(name: str, model: Any, frame: pd.DataFrame) -> Any:
    """Returns a model fitted on the first rows."""
    y = targets_for(name, labels(frame))
    return model.fit(rows_for(name, frame)[:TRAINED], y[:TRAINED])


def _train(folder: Path) -> None:
    """Writes the file of each pipeline, and what scikit-learn's own call makes of all rows."""
    from batchscore.columnar.tables import as_batch
    from batchscore.models.backends.saving import Asked
    from batchscore.models.backends.sklearn.save import SAVER

    frame = make_frame()
    scores: dict[str, Array] = {}
    for name, model in {**of_numbers(), **of_frames()}.items():
        rows = rows_for(name, frame)
        fit(name, model, frame)
        asked = Asked(None, None, None, None, (), None)
        draft = SAVER.draft(model, as_batch(rows[:TRAINED], "rows"), asked)
        (folder / f"{name}.skops").write_bytes(draft.content)
        scores[name] = own_scores(model, rows)
    np.savez(folder / "scores.npz", allow_pickle=False, **scores)


def trained_pipelines(folder: Path) -> Path:
    """Returns the folder with what a process of its own has trained and scored."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.pipelines", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=True)
    return folder


FRAMES = (
    *("usual", "filled", "rare", "strict", "coded", "target", "places", "categories"),
    "indicated",
)

if __name__ == "__main__":
    _train(Path(sys.argv[1]))
