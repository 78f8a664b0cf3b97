"""What the driver does next: its loss against torch's own, and what does not count."""

import torch
import torch.nn.functional as F

from perception import encoders
from perception.objectives import Batch
from perception.objectives.atc import ATC
from perception.objectives.atc_behaviour import ATCBehaviour, behaviour


def test_the_loss_is_the_cross_entropy_of_what_is_valid():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, generator=generator)
    actions = torch.randint(0, 5, (4, 3), generator=generator)
    valid = torch.rand(4, 3, generator=generator) < 0.5
    loss, right = behaviour(logits, actions, valid)
    torch.testing.assert_close(loss, F.cross_entropy(logits[valid], actions[valid]))
    torch.testing.assert_close(right, (logits[valid].argmax(1) == actions[valid]).float().mean())
    assert behaviour(logits, actions, torch.zeros_like(valid))[0] == 0


def images(times: int, worlds: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (times, worlds, 6, 32, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def test_actions_of_the_next_episode_are_not_asked_for():
    torch.manual_seed(0)
    objective = ATCBehaviour(encoders.build("small", 6, 32, 48), 5)
    seen = images(4, 2)
    episodes = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 0]])
    actions = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 2]])
    losses = []
    for last in (2, 3):  # of the second world, whose episode goes on; then of the first, where another has begun
        changed = actions.clone()
        changed[2, 0 if last == 2 else 1] = 3
        losses.append(objective(Batch(seen, seen, changed, episodes))[0])
    # The first image's third action lies in another episode in world 0 and in the same in world 1.
    features = objective.encoder(seen.flatten(0, 1)).view(4, 2, -1)
    foretold = objective.driver(features).view(4, 2, 3, 5).log_softmax(-1)
    expected = []
    for changed in (actions.index_put((torch.tensor(2), torch.tensor(w)), torch.tensor(3)) for w in (0, 1)):
        terms = []
        for ahead in range(3):
            pairs = [(t, w) for t in range(4 - ahead) for w in range(2) if episodes[t, w] == episodes[t + ahead, w]]
            terms.append(-sum(foretold[t, w, ahead, changed[t + ahead, w]] for t, w in pairs) / len(pairs))
        expected.append(2.0 * sum(terms) / 3)
    contrast = [
        ATC.contrasts(objective, features.flatten(0, 1), Batch(seen, seen, a, episodes))[0]
        for a in (
            actions.index_put((torch.tensor(2), torch.tensor(0)), torch.tensor(3)),
            actions.index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(3)),
        )
    ]
    for found, told, rest in zip(losses, expected, contrast, strict=True):
        torch.testing.assert_close(found, told + rest)
