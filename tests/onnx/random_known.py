"""What ONNX Runtime 1.32 does wrong or cannot do, among random models: by what the model holds, never by its seed."""


def known(model, text, output):
    """Why a disagreement is not rabot's; `None` if it may be. `output` is `None` where the model is refused."""
    return None
