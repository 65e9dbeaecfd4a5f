"""What a chest radiograph is, how it becomes a model's input, and how a model's output becomes a
finding.

`app` (serving) and `training` (learning) meet only here.  This package knows
numpy, pydicom, Pillow, pydantic and ONNX Runtime; it never imports torch and
never a web framework.
"""
