"""SKD: hand-worked numbers, and a critic that learns alone."""

import pytest
import torch

from pipeline.losses.skd import Discriminator, discriminator_loss, holistic, pairwise


def everywhere(x):
    return torch.ones(x.shape[0], *x.shape[2:], dtype=torch.bool)


def test_pairwise_hand_worked():
    # Two cells of 1 x 2 pixels: maxima of the student (1, 0) and (0, 1), of the teacher (1, 0)
    # and (3, 4)/5: G_s = I, G_t = [[1, .6], [.6, 1]], so the mean of 4 squares is .36 / 2.
    student = torch.tensor([[[[1.0, -5.0, 0.0, -1.0]], [[0.0, 0.0, -2.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, -5.0, 3.0, 1.0]], [[0.0, 0.0, 1.0, 4.0]]]])
    mean = pairwise(student, teacher, everywhere(student))
    assert mean.count == 4
    assert mean.value.item() == pytest.approx(0.18, rel=1e-6)


def test_pairwise_at_single_pixels():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, 2.0]], [[0.0, 0.0]]]])
    mean = pairwise(student, teacher, everywhere(student), pool_size=1)
    assert mean.value == 0.5  # cosines 0 against 1, in two of the four pairs


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return Discriminator(3, width=8)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 16)])
def test_discriminator_scores_maps_of_any_size(discriminator, size):
    x = draw(0, 2, 3, *size)
    scores = discriminator(x, everywhere(x))
    assert scores.shape == (2,)
    assert scores.isfinite().all()


def test_discriminator_does_not_see_padding(discriminator):
    discriminator.eval()  # no power iteration between the two calls
    x = draw(1, 2, 3, 8, 8)
    valid = everywhere(x)
    valid[0, 4:] = False
    expected = discriminator(x, valid)
    x[0, :, 4:] = 1e3
    torch.testing.assert_close(discriminator(x, valid), expected)


def test_discriminator_is_lipschitz(discriminator):
    """Spectral norms of one keep a small step small."""
    for _ in range(30):
        discriminator(draw(2, 1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool))
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2) for m in discriminator.near[::2]]
    assert all(norm.item() == pytest.approx(1, abs=0.05) for norm in norms)


def test_holistic_is_minus_the_mean_score_and_leaves_the_discriminator(discriminator):
    discriminator.eval()
    logits = draw(3, 2, 3, 8, 8).requires_grad_()
    mean = holistic(discriminator, logits, everywhere(logits))
    mean.value.backward()
    torch.testing.assert_close(mean.value, -discriminator(logits, everywhere(logits)).mean())
    assert logits.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in discriminator.parameters())


def test_discriminator_loss_is_the_hinge_and_leaves_the_student(discriminator):
    discriminator.eval()
    student, teacher = draw(4, 2, 3, 8, 8).requires_grad_(), draw(5, 2, 3, 8, 8)
    mean = discriminator_loss(discriminator, student, teacher, everywhere(student))
    mean.value.backward()
    real, fake = (discriminator(x, everywhere(x)) for x in (teacher, student))
    expected = (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
    torch.testing.assert_close(mean.value, expected)
    assert student.grad is None
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in discriminator.parameters())


def test_hinge_by_hand():
    class Sum(torch.nn.Module):
        def forward(self, logits, valid):
            return logits.sum((1, 2, 3))

    teacher = torch.tensor([3.0, 0.5]).view(2, 1, 1, 1)  # hinge 0 and 0.5
    student = torch.tensor([0.25, -4.0]).view(2, 1, 1, 1)  # hinge 1.25 and 0
    mean = discriminator_loss(Sum(), student, teacher, everywhere(student))
    assert mean.value == (0.5 + 1.25) / 2


def test_an_image_of_padding_alone_does_not_count(discriminator):
    x = draw(6, 2, 3, 8, 8)
    valid = everywhere(x)
    valid[1] = False
    assert holistic(discriminator, x, valid).count == 1
