"""Weighted k-NN classification (Wu 2018, arXiv 1805.01978, section 3.4).

Shape suffixes: N bank samples, M queries, D features, K neighbours, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    bank_ND: Tensor,
    labels_N: Tensor,
    queries_MD: Tensor,
    *,
    neighbors: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """The predicted class of each query, int64 [M], on the device of the features.

    bank_ND, labels_N: features and int64 classes of the samples that vote. queries_MD: features to classify.
    neighbors: number of nearest bank samples that vote, by cosine similarity.
    temperature: a vote weighs exp(similarity / temperature). chunk: queries at a time.
    Raises ValueError for an empty bank, and for NaN or Inf features.
    """
    if len(bank_ND) == 0:
        raise ValueError("the bank of the k-NN is empty")
    if not (torch.isfinite(bank_ND).all() and torch.isfinite(queries_MD).all()):
        raise ValueError("the features of the k-NN contain NaN or Inf")
    bank_ND, queries_MD = F.normalize(bank_ND.float(), dim=1), F.normalize(queries_MD.float(), dim=1)
    values_C, labels_N = labels_N.unique(return_inverse=True)  # labels may be any numbers
    predictions = []
    for chunk_MD in queries_MD.split(chunk):
        similarity_MK, index_MK = (chunk_MD @ bank_ND.T).topk(min(neighbors, len(bank_ND)), dim=1)
        votes_MC = torch.zeros(len(chunk_MD), len(values_C), device=chunk_MD.device)
        votes_MC.scatter_add_(1, labels_N[index_MK], torch.exp((similarity_MK - 1) / temperature))
        predictions.append(values_C[votes_MC.argmax(1)])
    return torch.cat(predictions)


def knn_accuracy(
    bank_ND: Tensor,
    labels_N: Tensor,
    queries_MD: Tensor,
    query_labels_M: Tensor,
    *,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy of `knn_predict`, in [0, 1]. query_labels_M: int64 true classes of the queries."""
    predicted_M = knn_predict(bank_ND, labels_N, queries_MD, neighbors=neighbors, temperature=temperature)
    return float((predicted_M == query_labels_M).double().mean())
