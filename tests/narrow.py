"""Large networks in a narrow form: the same layers in a fraction of the time."""

NARROW = {
    "cnn_lstm": {"width": 32},
    "ecg_transformer": {"width": 32, "depth": 2, "heads": 4},
    "heartbeit": {"width": 32, "depth": 2, "heads": 4},
    "inception1d": {"width": 8},
    "lstm": {"width": 16},
    "lstm_bidir": {"width": 16},
    "resnet1d": {"base_channels": 8},
    "resnet1d_wang": {"width": 16},
    "s4": {"width": 32},
    "se_resnet1d": {"base_channels": 16, "reduction": 2},
    "stripnet": {"base_channels": 8, "trees": 5, "depth": 3},
    "xresnet1d101": {"width": 16},
}
