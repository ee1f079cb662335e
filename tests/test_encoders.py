"""The graph encoder against a dense re-computation, and the symmetries it must have; the image encoders' trunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rnclib.data.molecules import graphs_from_smiles
from rnclib.encoders import GIN, GraphsAndNumbers, ImageEncoder

SMILES = ["C", "CCO", "c1ccccc1C(=O)N", "CC(C)(C)Cl", "C1CC2CCC1O2", "C", "N#Cc1ccc(Br)s1"]


def encoder(**options) -> GIN:
    """A network whose batch norms have run for a while: their statistics and scales are not 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GIN(**options).double()
    for norm in model.norms:
        norm.running_mean.uniform_(-1, 1, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
    return model


def batch_of(smiles, dtype=torch.float64):
    graphs = graphs_from_smiles(smiles)
    batch = graphs[np.arange(len(graphs))]
    batch.x = batch.x.to(dtype)
    return batch


def literal(model: GIN, smiles, training: bool) -> np.ndarray:
    """The encoder's formula in NumPy, with RDKit's adjacency matrix of the whole batch."""
    from rdkit import Chem

    molecules = [Chem.MolFromSmiles(s) for s in smiles]
    sizes = [molecule.GetNumAtoms() for molecule in molecules]
    ends = np.cumsum(sizes)
    adjacency = np.zeros((ends[-1], ends[-1]))
    for molecule, size, end in zip(molecules, sizes, ends, strict=True):
        adjacency[end - size : end, end - size : end] = Chem.GetAdjacencyMatrix(molecule)
    x = batch_of(smiles).x.numpy()
    state = {name: value.numpy() for name, value in model.state_dict().items()}

    def convolution(x, name):
        summed = x + adjacency @ x  # (1 + ε)·x + Σ over neighbours, with ε = 0
        inner = np.maximum(summed @ state[f"{name}.nn.0.weight"].T + state[f"{name}.nn.0.bias"], 0)
        return inner @ state[f"{name}.nn.2.weight"].T + state[f"{name}.nn.2.bias"]

    for layer in range(len(model.hidden)):
        x = convolution(x, f"hidden.{layer}")
        name = f"norms.{layer}"
        if training:
            mean, variance = x.mean(0), x.var(0)
        else:
            mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean) / np.sqrt(variance + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]
        x = np.tanh(x)
    x = convolution(x, "last")
    parts = [x[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    return np.array([np.concatenate([part.sum(0), part.mean(0)]) for part in parts])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"hidden_channels": 5, "out_channels": 3, "num_layers": 2}, {"num_layers": 3, "out_channels": 8}]
)
def test_the_encoder_is_its_formula(options, training):
    model = encoder(**options).train(training)
    expected = literal(model, SMILES, training)
    with torch.no_grad():
        features = model(batch_of(SMILES))
    assert features.shape == (len(SMILES), model.out_features) == expected.shape
    np.testing.assert_allclose(features.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_the_order_of_atoms_does_not_matter():
    from rdkit import Chem

    model, rng = encoder().eval(), np.random.default_rng(0)
    smiles = ["CC(=O)Nc1ccc(O)cc1", "C1CC2CCC1O2", "CC(C)(C)CCl"]
    reordered = []
    for s in smiles:
        molecule = Chem.MolFromSmiles(s)
        order = rng.permutation(molecule.GetNumAtoms()).tolist()
        reordered.append(Chem.MolToSmiles(Chem.RenumberAtoms(molecule, order), canonical=False))
    assert all(a != b for a, b in zip(smiles, reordered, strict=True))
    with torch.no_grad():
        torch.testing.assert_close(model(batch_of(reordered)), model(batch_of(smiles)), rtol=1e-10, atol=1e-10)


def test_in_evaluation_a_molecules_features_do_not_depend_on_its_batch():
    model = encoder().eval()
    with torch.no_grad():
        together = model(batch_of(SMILES))
        alone = torch.cat([model(batch_of([s])) for s in SMILES])
        backwards = model(batch_of(SMILES[::-1])).flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(together, backwards, rtol=1e-10, atol=1e-10)
    assert torch.equal(together[0], together[5])  # methane twice
    assert not torch.allclose(together[0], together[1])


def test_the_features_hold_the_sum_and_the_mean():
    model = encoder().eval()
    with torch.no_grad():
        features = model(batch_of(SMILES))
    sizes = torch.tensor([1.0, 3, 9, 5, 7, 1, 8], dtype=torch.float64)
    torch.testing.assert_close(features[:, :100], features[:, 100:] * sizes[:, None], rtol=1e-10, atol=1e-10)


def test_the_published_encoder_has_its_size():
    model = GIN()
    assert sum(parameter.numel() for parameter in model.parameters()) == 135384
    assert model.out_features == 200
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_parameter_gets_a_gradient():
    model = encoder().train()
    (model(batch_of(SMILES)) ** 2).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("smiles", [["C"], ["C", "C"], ["[Na+].[Cl-]"], ["[H][H]"]])
def test_molecules_without_a_bond_have_finite_features(smiles):
    model = GIN().eval()
    features = model(batch_of(smiles, torch.float32))
    assert features.shape == (len(smiles), 200)
    assert torch.isfinite(features).all() and features.abs().sum() > 0


@pytest.mark.parametrize("num_layers", [1, 0, -3])
def test_too_few_layers_are_refused(num_layers):
    with pytest.raises(ValueError, match=rf"^num_layers: got {num_layers}; allowed: an integer of at least 2"):
        GIN(num_layers=num_layers)


# --- images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "width", "parameters"), [
    ("resnet18", 512, 11_176_512), ("resnet50", 2048, 23_508_032), ("small", 256, None),
])  # fmt: skip
def test_an_image_encoder_gives_one_vector_for_each_view(model, width, parameters):
    encoder = ImageEncoder(model).eval()
    assert encoder.out_features == width
    if parameters:  # as published for the network, less its classifier
        assert sum(p.numel() for p in encoder.parameters()) == parameters
    images = torch.randn(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        views, single = encoder(images), encoder(images[:, 1])
    assert views.shape == (2, 3, width) and single.shape == (2, width)
    torch.testing.assert_close(views[:, 1], single, atol=1e-4, rtol=1e-3)


def test_the_resnet_is_torchvisions_up_to_its_classifier():
    from torchvision.models import resnet18

    reference = resnet18().eval()
    encoder = ImageEncoder("resnet18").eval()
    encoder.trunk.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(reference.fc(encoder(images)), reference(images), atol=1e-4, rtol=1e-4)


def test_an_unknown_image_encoder_is_refused():
    with pytest.raises(ValueError, match=r"model: got 'vgg'; allowed: 'resnet18', 'resnet50', 'small'"):
        ImageEncoder("vgg")


def test_the_residual_trunk_has_seven_convolutions_and_three_shortcuts_with_two_projections():
    model = ImageEncoder("residual").eval()
    kernels = [one.kernel_size for one in model.modules() if isinstance(one, nn.Conv2d)]
    assert kernels.count((3, 3)) == 7 and kernels.count((1, 1)) == 2
    images = torch.randn(2, 3, 32, 32)
    sizes = []
    for layer in model.trunk:
        layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[2]) if out.ndim == 4 else None)
    assert model(images).shape == (2, model.out_features) == (2, 96)
    assert sizes == [16, 16, 16, 16, 8, 4, 1]
    assert model(torch.stack([images, images], dim=1)).shape == (2, 2, 96)
    # with all its convolutions at zero a block lets its input through
    block = model.trunk[3]
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    x = torch.rand(1, 24, 4, 4)
    torch.testing.assert_close(block(x), x)


def test_graphs_and_numbers_are_both_heard_and_each_molecule_for_itself():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GraphsAndNumbers(5, (16, 8), dropout=0.1).eval()
        numbers = torch.randn(len(SMILES), 5)
    graphs = graphs_from_smiles(SMILES)
    every = np.arange(len(SMILES))
    out = model((graphs[every], numbers))
    assert out.shape == (len(SMILES), model.out_features) == (7, 8)
    # the first and the sixth molecule are one and the same: what sets them apart are the numbers
    assert not torch.allclose(out[0], out[5])
    alike = numbers.clone()
    alike[5] = alike[0]
    torch.testing.assert_close(model((graphs[every], alike))[0], model((graphs[every], alike))[5])
    order = [3, 1, 6]
    torch.testing.assert_close(model((graphs[order], numbers[order])), out[order])
    assert not torch.allclose(model((graphs[[1]], numbers[[2]])), out[[2]])
