"""The rows of He et al. 2016, Table 1, as variants of a sweep."""

VARIANTS = (
    {"name": "original", "model.shortcut": "zero_pad"},
    {"name": "plain", "model.shortcut": "none"},
    {
        "name": "constant scaling 0.5, 1",
        "model.shortcut": "constant_scaling",
        "model.shortcut_scale": 0.5,
        "model.branch_scale": 1.0,
    },
    {
        "name": "constant scaling 0.5, 0.5",
        "model.shortcut": "constant_scaling",
        "model.shortcut_scale": 0.5,
        "model.branch_scale": 0.5,
    },
    *(
        {
            "name": f"exclusive gating, bias {bias:.0f}",
            "model.shortcut": "exclusive_gating",
            "model.gate_bias": bias,
        }
        for bias in (0.0, -5.0, -6.0, -7.0)
    ),
    *(
        {
            "name": f"shortcut-only gating, bias {bias:.0f}",
            "model.shortcut": "shortcut_gating",
            "model.gate_bias": bias,
        }
        for bias in (0.0, -6.0)
    ),
    {"name": "1x1 conv shortcut", "model.shortcut": "conv"},
    {"name": "dropout shortcut 0.5", "model.shortcut": "dropout"},
)
