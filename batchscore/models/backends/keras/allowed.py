"""What of Keras a model's configuration may name: a fixed list, whatever Keras itself would load.

Left out are layers that run code of a file or of another framework, that read files, or that draw
random numbers also outside of training.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODELS = _words("Functional Model Sequential")
MODEL_MODULES = frozenset(
    (
        None,
        "keras",
        "keras.models",
        "keras.src.models.functional",
        "keras.src.models.model",
        "keras.src.models.sequential",
    )
)

LAYERS = _words(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention Average AveragePooling1D AveragePooling2D
    AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop Concatenate Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
    Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot
    Dropout ELU EinsumDense Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer
    LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D
    Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN
    RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D
    SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """
)

OPERATIONS = {
    "keras.src.ops.core": _words("Cast"),
    "keras.src.ops.nn": _words(
        "Elu Gelu LeakyRelu LogSoftmax Relu Relu6 Sigmoid Silu Softmax Softplus"
    ),
    "keras.src.ops.numpy": _words(
        """
        Absolute Add All Amax Amin Any Clip Concatenate Cos Divide Equal Exp ExpandDims Flip GetItem
        Greater GreaterEqual Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Matmul Max
        Maximum Mean Min Minimum Multiply Negative NotEqual Power Repeat Reshape Sin Sqrt Square
        Squeeze Stack Std Subtract Sum Tanh Transpose TrueDivide Var Where
        """
    ),
}
"""What the functional API makes of arithmetic between layers, by module."""

INITIALIZERS = _words(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling
    Zeros constant glorot_normal glorot_uniform he_normal he_uniform identity lecun_normal
    lecun_uniform normal one ones orthogonal random_normal random_uniform truncated_normal uniform
    variance_scaling zero zeros
    """
)
REGULARIZERS = _words("L1 L1L2 L2 OrthogonalRegularizer l1 l1_l2 l2 orthogonal_regularizer")
CONSTRAINTS = _words(
    """
    MaxNorm MinMaxNorm NonNeg UnitNorm max_norm maxnorm min_max_norm non_neg nonneg unit_norm
    unitnorm
    """
)
ACTIVATIONS = _words(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus sparsemax squareplus swish tanh tanh_shrink threshold
    """
)
POLICIES = _words("bfloat16 float16 float32 float64 mixed_bfloat16 mixed_float16")

NEEDS_TENSORFLOW = _words("Hashing HashedCrossing IntegerLookup StringLookup TextVectorization")
RUNS_CODE = _words("FlaxLayer JaxLayer Lambda TFSMLayer TorchModuleWrapper __lambda__ function")
