"""What can be said of features without labels. None of these figures says how well anybody drives with them: compare
them between runs of one objective, not between objectives.
"""

import torch
import torch.nn.functional as F

SMALLEST = 1e-7  # added to each share of RankMe, as in the paper


def rankme(features: torch.Tensor) -> torch.Tensor:
    """How many directions features use: exp(-sum_k p_k log p_k), p_k = s_k / sum_j s_j + 1e-7, s the singular values.

    k if k singular values are equal and the others 0; between 1 and min(N, d). Meaningful where N is several times d.

    Source: Garrido et al. 2023, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank".

    Args:
        features: [N, d], not all 0.

    Returns:
        a scalar.
    """
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum() + SMALLEST
    return (-(shares * shares.log()).sum()).exp()


def alignment(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How near pairs are: mean |a - b|^2 of l2-normalised features; 0 if each pair is one, 2 if pairs are orthogonal.

    Source: Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere".

    Args:
        first, second: [N, d], row n of both is a pair.

    Returns:
        a scalar.
    """
    return (F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(1).mean()


def uniformity(features: torch.Tensor) -> torch.Tensor:
    """How evenly l2-normalised features cover the sphere: log mean exp(-2 |x - y|^2) over all pairs of two rows.

    0 if all are one; about -4 if spread evenly over a sphere of many dimensions. Lower is more even. Source: as for
    `alignment`.

    Args:
        features: [N, d], N at least 2.

    Returns:
        a scalar.
    """
    cosines = F.normalize(features, dim=1)
    cosines = cosines @ cosines.T
    pairs = torch.triu_indices(*cosines.shape, offset=1, device=features.device)
    # On the sphere |x - y|^2 = 2 - 2 cos.
    exponents = 4 * (cosines[pairs[0], pairs[1]] - 1)
    return exponents.logsumexp(0) - torch.tensor(float(len(exponents)), device=features.device).log()
