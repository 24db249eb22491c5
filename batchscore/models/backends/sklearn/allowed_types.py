"""What a `.skops` file may hold: a fixed list of types, by module and name.

A type is here if neither building it from its attributes nor predicting with it runs code that the
file chooses, opens files, or draws random numbers. Whatever is not here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Role = Literal["classifier", "regressor", "outliers", "clusters", "transformer", "mixed"]


def _places(listed: str) -> dict[str, str]:
    """Returns the full names of types from lines of a module and the types in it."""
    found: dict[str, str] = {}
    for line in listed.strip().splitlines():
        module, *names = line.split()
        found |= {f"sklearn.{module}.{name}": name for name in names}
    return found


CLASSIFIERS = _places("""
calibration CalibratedClassifierCV
discriminant_analysis LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis
dummy DummyClassifier
ensemble._bagging BaggingClassifier
ensemble._forest ExtraTreesClassifier RandomForestClassifier
ensemble._gb GradientBoostingClassifier
ensemble._hist_gradient_boosting.gradient_boosting HistGradientBoostingClassifier
ensemble._stacking StackingClassifier
ensemble._voting VotingClassifier
ensemble._weight_boosting AdaBoostClassifier
gaussian_process._gpc GaussianProcessClassifier
linear_model._logistic LogisticRegression LogisticRegressionCV
linear_model._passive_aggressive PassiveAggressiveClassifier
linear_model._perceptron Perceptron
linear_model._ridge RidgeClassifier RidgeClassifierCV
linear_model._stochastic_gradient SGDClassifier
multiclass OneVsOneClassifier OneVsRestClassifier
naive_bayes BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB
neighbors._classification KNeighborsClassifier RadiusNeighborsClassifier
neighbors._nearest_centroid NearestCentroid
neural_network._multilayer_perceptron MLPClassifier
semi_supervised._self_training SelfTrainingClassifier
svm._classes LinearSVC NuSVC SVC
tree._classes DecisionTreeClassifier ExtraTreeClassifier
""")
REGRESSORS = _places("""
compose._target TransformedTargetRegressor
cross_decomposition._pls CCA PLSCanonical PLSRegression
dummy DummyRegressor
ensemble._bagging BaggingRegressor
ensemble._forest ExtraTreesRegressor RandomForestRegressor
ensemble._gb GradientBoostingRegressor
ensemble._hist_gradient_boosting.gradient_boosting HistGradientBoostingRegressor
ensemble._stacking StackingRegressor
ensemble._voting VotingRegressor
ensemble._weight_boosting AdaBoostRegressor
gaussian_process._gpr GaussianProcessRegressor
isotonic IsotonicRegression
kernel_ridge KernelRidge
linear_model._base LinearRegression
linear_model._bayes ARDRegression BayesianRidge
linear_model._coordinate_descent ElasticNet ElasticNetCV Lasso LassoCV
linear_model._coordinate_descent MultiTaskElasticNet MultiTaskElasticNetCV
linear_model._coordinate_descent MultiTaskLasso MultiTaskLassoCV
linear_model._glm.glm GammaRegressor PoissonRegressor TweedieRegressor
linear_model._huber HuberRegressor
linear_model._least_angle Lars LarsCV LassoLars LassoLarsCV LassoLarsIC
linear_model._omp OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV
linear_model._passive_aggressive PassiveAggressiveRegressor
linear_model._quantile QuantileRegressor
linear_model._ransac RANSACRegressor
linear_model._ridge Ridge RidgeCV
linear_model._stochastic_gradient SGDRegressor
linear_model._theil_sen TheilSenRegressor
multioutput MultiOutputRegressor RegressorChain
neighbors._regression KNeighborsRegressor RadiusNeighborsRegressor
neural_network._multilayer_perceptron MLPRegressor
svm._classes LinearSVR NuSVR SVR
tree._classes DecisionTreeRegressor ExtraTreeRegressor
""")
OUTLIERS = _places("""
covariance._elliptic_envelope EllipticEnvelope
ensemble._iforest IsolationForest
linear_model._stochastic_gradient SGDOneClassSVM
neighbors._lof LocalOutlierFactor
svm._classes OneClassSVM
""")
CLUSTERS = _places("""
cluster._bisect_k_means BisectingKMeans
cluster._kmeans KMeans MiniBatchKMeans
mixture._bayesian_mixture BayesianGaussianMixture
mixture._gaussian_mixture GaussianMixture
""")
# Each value is computed of its row's own values, by the same steps whatever the other rows are.
_EXACT_TRANSFORMERS = _places("""
feature_extraction.text CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer
feature_selection._from_model SelectFromModel
feature_selection._rfe RFE RFECV
feature_selection._sequential SequentialFeatureSelector
feature_selection._univariate_selection GenericUnivariateSelect SelectFdr SelectFpr SelectFwe
feature_selection._univariate_selection SelectKBest SelectPercentile
feature_selection._variance_threshold VarianceThreshold
impute._base MissingIndicator SimpleImputer
preprocessing._data Binarizer MaxAbsScaler MinMaxScaler QuantileTransformer RobustScaler
preprocessing._data StandardScaler
preprocessing._discretization KBinsDiscretizer
preprocessing._encoders OneHotEncoder OrdinalEncoder
preprocessing._function_transformer FunctionTransformer
preprocessing._polynomial PolynomialFeatures SplineTransformer
preprocessing._target_encoder TargetEncoder
""")
_TRANSFORMERS = _EXACT_TRANSFORMERS | _places("""
cluster._agglomerative FeatureAgglomeration
decomposition._factor_analysis FactorAnalysis
decomposition._fastica FastICA
decomposition._incremental_pca IncrementalPCA
decomposition._kernel_pca KernelPCA
decomposition._pca PCA
decomposition._truncated_svd TruncatedSVD
impute._iterative IterativeImputer
impute._knn KNNImputer
kernel_approximation AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler
kernel_approximation SkewedChi2Sampler
neighbors._nca NeighborhoodComponentsAnalysis
preprocessing._data Normalizer PowerTransformer
random_projection GaussianRandomProjection
""")
COMPOSED = _places("""
compose._column_transformer ColumnTransformer
frozen._frozen FrozenEstimator
pipeline FeatureUnion Pipeline
""")
_PARTS = _places("""
_loss.link HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit
_loss.loss AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss
_loss.loss HalfPoissonLoss HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss
_loss.loss PinballLoss
calibration _CalibratedClassifier _SigmoidCalibration _TemperatureScaling
covariance._empirical_covariance EmpiricalCovariance
covariance._robust_covariance MinCovDet
compose._column_transformer make_column_selector
ensemble._hist_gradient_boosting.binning _BinMapper
ensemble._hist_gradient_boosting.predictor TreePredictor
gaussian_process._gpc _BinaryGaussianProcessClassifierLaplace
gaussian_process.kernels CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation
gaussian_process.kernels Hyperparameter Matern Product RBF RationalQuadratic Sum WhiteKernel
multiclass _ConstantPredictor
neural_network._stochastic_optimizers AdamOptimizer SGDOptimizer
preprocessing._data KernelCenterer
preprocessing._label LabelBinarizer LabelEncoder
""")
TOGETHER = _places("""
decomposition._lda LatentDirichletAllocation
decomposition._nmf MiniBatchNMF NMF
""")
"""Transformers that stop when all rows of a call are near enough: no row has a score of its own."""

OBJECTS = {
    **CLASSIFIERS,
    **REGRESSORS,
    **OUTLIERS,
    **CLUSTERS,
    **_TRANSFORMERS,
    **COMPOSED,
    **_PARTS,
}
"""Types whose attributes are set as the file has them."""

LOSSES = _places("""
_loss._loss CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss
_loss._loss CyHalfMultinomialLoss CyHalfPoissonLoss CyHalfSquaredError CyHalfTweedieLoss
_loss._loss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss
linear_model._sgd_fast EpsilonInsensitive Hinge Huber Log ModifiedHuber
linear_model._sgd_fast SquaredEpsilonInsensitive SquaredHinge SquaredLoss
""")
GAP = "pandas.api.typing.NAType"
"""The type of `pd.NA`, of which there is one value: an imputer may look for it."""
BUILT_AGAIN = (
    GAP,
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
)
"""Types that are built again from what they were made of, since they trust what they are given."""

TUPLES = (
    "builtins.tuple",
    "sklearn.gaussian_process.kernels.Hyperparameter",
    "sklearn.impute._iterative._ImputerTriplet",
)
MAPPINGS = ("builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch")
SCALARS = frozenset(
    f"numpy.{name}"
    for name in (
        *("bool", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "str_", "longlong", "ulonglong", "intc"),
    )
)
TYPES = (
    SCALARS
    | {"numpy.number", "numpy.object_"}
    | {f"builtins.{name}" for name in ("bool", "float", "int", "object", "str")}
)
"""What may be named as a type, such as that of an encoder's codes."""

_UFUNCS = (
    *("abs", "absolute", "arcsinh", "arctan", "cbrt", "ceil", "cos", "exp", "exp2", "expm1"),
    *("fabs", "floor", "log", "log10", "log1p", "log2", "negative", "reciprocal", "rint"),
    *("sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc"),
)
_CHOOSERS = (
    *("chi2", "f_classif", "f_oneway", "f_regression", "r_regression"),
    *("mutual_info_classif", "mutual_info_regression"),
)
CHECK_ARRAY = "sklearn.utils.validation.check_array"
FUNCTIONS = (
    {f"numpy.{name}" for name in _UFUNCS}
    | {f"sklearn.feature_selection._univariate_selection.{name}" for name in _CHOOSERS}
    | {f"sklearn.feature_selection._mutual_info.{name}" for name in _CHOOSERS}
    | {CHECK_ARRAY}
)
"""Functions: of a number each, and those that chose features in training."""

_EXACT_NAMES = (
    *("DecisionTree", "ExtraTree", "ExtraTrees", "RandomForest", "GradientBoosting"),
    # Of the results of others these make theirs row by row.
    *("HistGradientBoosting", "AdaBoost", "Bagging", "Stacking"),
)
_EXACT = (
    {f"{name}{kind}" for name in _EXACT_NAMES for kind in ("Classifier", "Regressor")}
    | {*_EXACT_TRANSFORMERS.values()}
    | {"CalibratedClassifierCV", "ColumnTransformer", "DummyClassifier", "DummyRegressor"}
    | {"FeatureUnion", "FrozenEstimator", "IsolationForest", "Pipeline"}
    | {"MultiOutputRegressor", "TransformedTargetRegressor"}
)
ESTIMATORS = {**CLASSIFIERS, **REGRESSORS, **OUTLIERS, **CLUSTERS, **_TRANSFORMERS, **COMPOSED}
INEXACT = {*ESTIMATORS.values()} - _EXACT
"""Estimators whose scores have other bits in a call of another number of rows."""

_ROLES: Mapping[Role, Mapping[str, str]] = {
    "classifier": CLASSIFIERS,
    "regressor": REGRESSORS,
    "outliers": OUTLIERS,
    "clusters": CLUSTERS,
    "transformer": _TRANSFORMERS,
}


def role_of(full: str) -> Role:
    """Returns what an estimator is for, by the full name of its type."""
    return next((role for role, known in _ROLES.items() if full in known), "mixed")
