"""Metrics: functions of tensors, eager and compiled, and objects that accumulate over batches."""

from graphflow.metrics.classification import accuracy, confusion_matrix, f1_score, precision, recall
from graphflow.metrics.curves import average_precision, precision_recall_curve, roc_auc, roc_curve
from graphflow.metrics.objects import (
    ROCAUC,
    Accuracy,
    AveragePrecision,
    ConfusionMatrix,
    F1Score,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    Precision,
    R2Score,
    Recall,
)
from graphflow.metrics.regression import mean_absolute_error, mean_squared_error, r2_score

__all__ = [
    "ROCAUC", "Accuracy", "AveragePrecision", "ConfusionMatrix", "F1Score", "Mean", "MeanAbsoluteError",
    "MeanSquaredError", "Metric", "Precision", "R2Score", "Recall", "accuracy", "average_precision",
    "confusion_matrix", "f1_score", "mean_absolute_error", "mean_squared_error", "precision",
    "precision_recall_curve", "r2_score", "recall", "roc_auc", "roc_curve",
]  # fmt: skip
