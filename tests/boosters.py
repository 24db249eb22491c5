"""Models of trees that a process of their own trains, with that framework's own scores.

No test imports the framework for that: `python -m tests.boosters FRAMEWORK FOLDER` does it once, as
a person would who knows nothing of batchscore.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
ROWS = 6_000
TRAINED = 4_000
COLOURS = ["blue", "green", "red"]
CODES = [3, 7, 11]
COLUMNS = ["size", "colour", "code", "count", "is_new"]


def make_frame(rows: int = ROWS) -> pd.DataFrame:
    """Returns rows with nulls, infinities, and categories that training does not see."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows),
            "is_new": rng.random(rows) > 0.5,
            "code": rng.choice(CODES, rows),
            "size": rng.normal(size=rows),
            "count": rng.integers(-5, 10**10, rows),
            "colour": rng.choice(COLOURS, rows).astype(object),
        }
    )
    frame.loc[::7, "size"] = np.nan
    frame.loc[::11, "colour"] = None
    frame.loc[TRAINED::5, "colour"] = "pink"
    frame.loc[TRAINED::13, "code"] = 4
    frame.loc[TRAINED::50, "size"] = np.inf
    frame.loc[TRAINED + 1 :: 50, "size"] = -np.inf
    return frame


def for_training(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of training in its order, with its categories."""
    colour = pd.Categorical(frame["colour"], COLOURS)
    made = frame[COLUMNS].assign(colour=colour, code=pd.Categorical(frame["code"], CODES))
    return made


def labels(frame: pd.DataFrame) -> Any:
    """Returns 0, 1 or 2 for each row."""
    rng = np.random.default_rng(6)
    size = frame["size"].replace([np.inf, -np.inf], 0).fillna(0)
    noise = rng.normal(size=len(frame)) * 0.3
    return ((size + (frame["colour"] == "red") + noise) > 0.2).astype(int) + (noise > 0.4)


def train_xgboost(folder: Path) -> None:
    """Writes models of several objectives, and what XGBoost's own calls make of all rows."""
    import xgboost

    frame, y = make_frame(), labels(make_frame())
    rows = for_training(frame)
    known, label = rows[:TRAINED], y[:TRAINED]
    options: dict[str, Any] = {"n_estimators": 40, "max_depth": 5, "n_jobs": 1}
    binary = xgboost.XGBClassifier(**options, enable_categorical=True, early_stopping_rounds=3)
    binary.fit(
        known[:3000], label[:3000] > 0, eval_set=[(known[3000:], label[3000:] > 0)], verbose=0
    )
    many = xgboost.XGBClassifier(**{**options, "n_estimators": 8}, enable_categorical=True)
    many.fit(known, label)
    counts = xgboost.XGBRegressor(**options, objective="count:poisson", enable_categorical=True)
    counts.fit(known, label)
    for name, model in {"binary": binary, "many": many, "counts": counts}.items():
        model.save_model(folder / f"{name}.ubj")
        model.save_model(folder / f"{name}.json")
    # Contributions are of finite numbers; no split is beyond these.
    finite = rows.assign(size=rows["size"].clip(-1e30, 1e30))
    matrix = xgboost.DMatrix(finite, enable_categorical=True)
    contributions: dict[str, Any] = {
        f"{name}_contributions": model.get_booster().predict(
            matrix,
            pred_contribs=True,
            iteration_range=(0, rounds),
            strict_shape=True,
        )
        for name, model, rounds in (
            ("binary", binary, binary.best_iteration + 1),
            ("many", many, 8),
            ("counts", counts, 40),
        )
    }
    plain = xgboost.XGBRegressor(**options, missing=-999.0)
    plain.fit(known[["size", "count"]].fillna(-999).to_numpy(), label)
    plain.save_model(folder / "unnamed.ubj")
    gaps = frame[["size", "count"]].fillna(-999).to_numpy()
    np.savez(
        folder / "scores.npz",
        binary_probability=np.asarray(binary.predict_proba(rows))[:, 1],
        binary_raw=binary.predict(rows, output_margin=True),
        binary_class=binary.predict(rows),
        many_probability=many.predict_proba(rows),
        many_class=many.predict(rows),
        counts_value=counts.predict(rows),
        unnamed_value=plain.predict(gaps),
        **contributions,
        rounds=np.array([binary.best_iteration + 1, binary.get_booster().num_boosted_rounds()]),
    )


def train_lightgbm(folder: Path) -> None:
    """Writes models of several objectives, and what LightGBM's own calls make of all rows."""
    import lightgbm

    frame, y = make_frame(), labels(make_frame())
    rows = for_training(frame)
    known, label = rows[:TRAINED], y[:TRAINED]
    options: dict[str, Any] = {"n_estimators": 30, "num_leaves": 15, "n_jobs": 1, "verbose": -1}
    binary = lightgbm.LGBMClassifier(**options).fit(known, label > 0)
    many = lightgbm.LGBMClassifier(**options).fit(known, label)
    counts = lightgbm.LGBMRegressor(**options, objective="poisson").fit(known, label)
    for name, model in {"binary": binary, "many": many, "counts": counts}.items():
        model.booster_.save_model(folder / f"{name}.txt")
    contributions: dict[str, Any] = {
        f"{name}_contributions": np.reshape(model.predict(rows, pred_contrib=True), (ROWS, -1, 6))
        for name, model in (("binary", binary), ("many", many), ("counts", counts))
    }
    np.savez(
        folder / "scores.npz",
        **contributions,
        binary_probability=np.asarray(binary.predict_proba(rows))[:, 1],
        binary_raw=binary.predict(rows, raw_score=True),
        binary_class=binary.predict(rows),
        many_probability=many.predict_proba(rows),
        many_class=many.predict(rows),
        counts_value=counts.predict(rows),
    )


def for_catboost(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of training in its order, with a text in the place of a null."""
    return frame[COLUMNS].assign(colour=frame["colour"].fillna("none"))


def train_catboost(folder: Path) -> None:
    """Writes models of several kinds of trees, and what CatBoost's own calls make of all rows."""
    import catboost

    frame, y = make_frame(), labels(make_frame())
    rows = for_catboost(frame)
    known, label = rows[:TRAINED], y[:TRAINED]
    options: dict[str, Any] = {"iterations": 20, "verbose": 0, "allow_writing_files": False}
    mixed = {**options, "cat_features": ["colour", "code"]}
    binary = catboost.CatBoostClassifier(**mixed, depth=5, one_hot_max_size=2, max_ctr_complexity=3)
    binary.fit(known, label > 0)
    many = catboost.CatBoostClassifier(**mixed, grow_policy="Lossguide", loss_function="MultiClass")
    many.fit(known, np.array(["low", "mid", "ü"])[label])
    counts = catboost.CatBoostRegressor(**mixed, loss_function="Poisson", grow_policy="Depthwise")
    counts.fit(known, label)
    ctrs = ["Borders", "Counter", "Buckets", "BinarizedTargetMeanValue"]
    ctr = catboost.CatBoostRegressor(**mixed, simple_ctr=ctrs, nan_mode="Max", one_hot_max_size=1)
    ctr.fit(known, label)
    hot = catboost.CatBoostClassifier(**mixed, one_hot_max_size=255)
    hot.fit(known, label)
    bounds = catboost.CatBoostRegressor(**options, loss_function="MultiQuantile:alpha=0.1,0.9")
    bounds.fit(known[["size", "count"]].to_numpy(), label)
    early = catboost.CatBoostRegressor(**{**options, "iterations": 200}, early_stopping_rounds=2)
    numbers = rows[["size", "count", "is_new"]]
    early.fit(
        numbers[:2000], label[:2000], eval_set=(numbers[2000:TRAINED], label[2000:]), verbose=0
    )
    models = {"binary": binary, "many": many, "counts": counts, "ctr": ctr, "hot": hot}
    focal = catboost.CatBoostClassifier(
        **options, loss_function="Focal:focal_alpha=0.3;focal_gamma=2"
    )
    focal.fit(numbers[:TRAINED], label > 0)
    cosh = catboost.CatBoostRegressor(**options, loss_function="LogCosh")
    cosh.fit(numbers[:TRAINED], label)
    models |= {"unnamed": bounds, "early": early, "focal": focal, "cosh": cosh}
    for name, model in models.items():
        model.save_model(folder / f"{name}.cbm")
    named = [*many.classes_]
    pool = catboost.Pool(rows, cat_features=["colour", "code"])
    contributions: dict[str, Any] = {
        f"{name}_contributions": np.reshape(
            models[name].get_feature_importance(pool, type="ShapValues"), (ROWS, -1, 6)
        )
        for name in ("binary", "ctr")
    }
    np.savez(
        folder / "scores.npz",
        **contributions,
        binary_probability=binary.predict_proba(rows)[:, 1].copy(),
        binary_raw=binary.predict(rows, prediction_type="RawFormulaVal"),
        binary_class=(binary.predict(rows).astype(str) == "True").astype(np.int64),
        many_probability=many.predict_proba(rows),
        many_class=np.array([named.index(each) for each in many.predict(rows).reshape(-1)]),
        counts_value=counts.predict(rows),
        ctr_value=ctr.predict(rows),
        hot_class=hot.predict(rows).reshape(-1),
        unnamed_value=bounds.predict(rows[["size", "count"]].to_numpy()),
        early_value=early.predict(numbers),
        focal_probability=focal.predict_proba(numbers)[:, 1].copy(),
        cosh_value=cosh.predict(numbers),
        rounds=np.array([early.best_iteration_ + 1]),
    )


def train_texts(folder: Path) -> None:
    """Writes models of CatBoost with a text, and with an embedding."""
    import catboost

    options: dict[str, Any] = {"iterations": 2, "verbose": 0, "allow_writing_files": False}
    label, words = [0, 1] * 20, [f"word {n % 3} and more" for n in range(40)]
    model = catboost.CatBoostClassifier(**options, text_features=["words"])
    model.fit(pd.DataFrame({"words": words}), label)
    model.save_model(folder / "words.cbm")
    vectors = pd.DataFrame({"vector": [[float(n % 5), float(n % 2)] for n in range(40)]})
    model = catboost.CatBoostClassifier(**options, embedding_features=["vector"])
    model.fit(vectors, label)
    model.save_model(folder / "vector.cbm")


def write_table(path: Path) -> pa.Table:
    """Writes the rows as a person has them: other columns too, in another order, plain types."""
    table = pa.Table.from_pandas(make_frame(), preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=1_000)
    return table


def damaged(content: bytes, count: int) -> list[bytes]:
    """Returns copies of a file that are cut, or have other bytes, the same ones each time."""
    rng = np.random.default_rng(9)
    made = []
    for number in range(count):
        place = int(rng.integers(1, len(content)))
        spoilt = bytearray(content)
        length = int(rng.integers(1, 9))
        spoilt[place : place + length] = rng.bytes(length)
        made.append(content[:place] if number % 3 == 0 else bytes(spoilt))
    return made


def trained(framework: str, folder: Path) -> Path:
    """Returns the folder with what a process of its own has trained and scored."""
    command = [sys.executable, "-m", "tests.boosters", framework, str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "2"}, check=True)
    return folder


if __name__ == "__main__":
    {
        "catboost": train_catboost,
        "lightgbm": train_lightgbm,
        "texts": train_texts,
        "xgboost": train_xgboost,
    }[sys.argv[1]](Path(sys.argv[2]))
