r"""The Rank-N-Contrast loss: exact, finite for every finite batch, at about the cost of SupCon.

For embeddings :math:`v_1 … v_M` with labels :math:`y_i`, similarities
:math:`s_{ij} = -\lVert v_i - v_j\rVert_2 / τ` and label distances :math:`d_{ij} = \lVert y_i - y_j\rVert_1`,
the loss of Zha et al. (2023) is

.. math::

    L = \frac{1}{M(M-1)} \sum_i \sum_{j≠i} \bigl(\log D_{ij} - s_{ij}\bigr), \qquad
    D_{ij} = \sum_{k≠i,\; d_{ik} ≥ d_{ij}} e^{s_{ik}} .

**Cumulative sums.** Fix an anchor i and order the others by label distance, farthest first. Then
:math:`D_{ij}` is the running sum of :math:`e^{s_{ik}}` up to j: one sort and one cumulative sum give all
denominators of the anchor, where the definition asks for M − 1 sums of up to M − 1 terms.

**Ties.** The condition is "greater *or equal*", so the running sum is read at the end of the run of equal
distances (`rnclib.loss.labels`). Samples of equal label are equally far from every anchor and form one group: sums run
over U groups instead of M samples, and the anchors of a group share one sort.

**Gradient.** :math:`e^{s_{ik}}` is a term of :math:`D_{ij}` for all j that are as near or nearer than k, so

.. math::

    \frac{∂L}{∂s_{ik}} = \frac{1}{M(M-1)} \bigl( e^{s_{ik}} W_{ik} - 1 \bigr), \qquad
    W_{ik} = \sum_{j≠i,\; d_{ij} ≤ d_{ik}} \frac{1}{D_{ij}} ,

another running sum, from the nearest outwards. The chain rule through the distances is a matrix product. So loss and
gradient come from one pass over the anchors (`rnclib.loss.fast`); the backward pass only scales the stored gradient.
What cannot take that path sorts M × M matrices and leaves the gradient to autograd (`rnclib.loss.plain`).
"""

from rnclib.loss.criterion import RnCLoss, rnc_loss
from rnclib.loss.labels import rnc_lower_bound

__all__ = ["RnCLoss", "rnc_loss", "rnc_lower_bound"]
