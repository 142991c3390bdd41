"""Programs from introductions to PyTorch, with only the imports changed.

Weights and data are NumPy's; the numbers are PyTorch 2.13's for the same.
"""

from __future__ import annotations

import collections
import copy
import random
from typing import Any

import graphflow as torch
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def seeded() -> None:
    RNG.bit_generator.state = np.random.default_rng(7).bit_generator.state
    random.seed(0)
    torch.manual_seed(0)


def arr(*shape: int, lo: int | None = None, hi: int = 0) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32) if lo is None else RNG.integers(lo, hi, shape)


def det(model: Any) -> Any:
    """The model with weights that don't depend on the framework."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(np.asarray(RNG.standard_normal(tuple(p.shape)) * 0.2, np.float32)))
    return model


def program_dqn() -> list[Any]:
    Transition = collections.namedtuple("Transition", ("state", "action", "next_state", "reward"))

    class DQN(nn.Module):
        def __init__(self, n, a):
            super().__init__()
            self.layer1 = nn.Linear(n, 16)
            self.layer2 = nn.Linear(16, 16)
            self.layer3 = nn.Linear(16, a)

        def forward(self, x):
            x = F.relu(self.layer1(x))
            x = F.relu(self.layer2(x))
            return self.layer3(x)

    policy = det(DQN(4, 2))
    target = DQN(4, 2)
    target.load_state_dict(policy.state_dict())
    opt = torch.optim.AdamW(policy.parameters(), lr=0.001, amsgrad=True)
    memory = collections.deque(maxlen=100)
    random.seed(0)
    for i in range(60):
        s = torch.tensor(arr(4).tolist(), dtype=torch.float32).unsqueeze(0)
        with torch.no_grad():
            a = policy(s).max(1).indices.view(1, 1)
        ns = None if i % 7 == 0 else torch.tensor(arr(4).tolist()).unsqueeze(0)
        memory.append(Transition(s, a, ns, torch.tensor([1.0 if i % 3 else -1.0])))
    out = []
    for it in range(10):
        batch = Transition(*zip(*random.sample(memory, 32)))
        mask = torch.tensor(tuple(map(lambda s: s is not None, batch.next_state)), dtype=torch.bool)
        nfs = torch.cat([s for s in batch.next_state if s is not None])
        sb = torch.cat(batch.state)
        ab = torch.cat(batch.action)
        rb = torch.cat(batch.reward)
        q = policy(sb).gather(1, ab)
        nv = torch.zeros(32)
        with torch.no_grad():
            nv[mask] = target(nfs).max(1).values
        exp = nv * 0.99 + rb
        loss = nn.SmoothL1Loss()(q, exp.unsqueeze(1))
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy.parameters(), 100)
        opt.step()
        out.append(loss.item())
        tsd = target.state_dict()
        psd = policy.state_dict()
        for k in psd:
            tsd[k] = psd[k] * 0.005 + tsd[k] * (1 - 0.005)
        target.load_state_dict(tsd)
    out.append(target.layer1.weight.tolist())
    return out


def program_reinforce() -> list[Any]:

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine1 = nn.Linear(4, 16)
            self.dropout = nn.Dropout(p=0.6)
            self.affine2 = nn.Linear(16, 2)
            self.saved_log_probs = []
            self.rewards = []

        def forward(self, x):
            x = self.affine1(x)
            x = F.relu(x)
            return F.softmax(self.affine2(x), dim=1)

    policy = det(Policy())
    opt = torch.optim.Adam(policy.parameters(), lr=0.01)
    eps = np.finfo(np.float32).eps.item()
    out = []
    for ep in range(3):
        for t in range(10):
            state = torch.from_numpy(arr(4)).float().unsqueeze(0)
            probs = policy(state)
            action = torch.tensor([t % 2])
            lp = torch.log(probs.gather(1, action.unsqueeze(1))).squeeze(1)
            policy.saved_log_probs.append(lp)
            policy.rewards.append(float(t % 3))
        R = 0
        policy_loss = []
        returns = collections.deque()
        for r in policy.rewards[::-1]:
            R = r + 0.99 * R
            returns.appendleft(R)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + eps)
        for lp, R in zip(policy.saved_log_probs, returns):
            policy_loss.append(-lp * R)
        opt.zero_grad()
        policy_loss = torch.cat(policy_loss).sum()
        policy_loss.backward()
        opt.step()
        out.append(policy_loss.item())
        del policy.rewards[:]
        del policy.saved_log_probs[:]
    out.append(policy.affine2.bias.tolist())
    a = torch.multinomial(torch.tensor([[0.0, 1.0]]), 1)
    return out


def program_autoencoder_vae() -> list[Any]:
    out = []

    class AE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(28 * 4, 16), nn.ReLU(), nn.Linear(16, 3))
            self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 28 * 4), nn.Sigmoid())

        def forward(self, x):
            return self.decoder(self.encoder(x))

    ae = det(AE())
    opt = torch.optim.Adam(ae.parameters(), lr=0.001, weight_decay=1e-08)
    x = torch.from_numpy(np.abs(arr(16, 28 * 4))).clamp(0, 1)
    for i in range(10):
        r = ae(x)
        loss = nn.MSELoss()(r, x)
        opt.zero_grad()
        loss.backward()
        opt.step()
        out.append(loss.item())

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(112, 20)
            self.fc21 = nn.Linear(20, 4)
            self.fc22 = nn.Linear(20, 4)
            self.fc3 = nn.Linear(4, 20)
            self.fc4 = nn.Linear(20, 112)

        def encode(self, x):
            h1 = F.relu(self.fc1(x))
            return (self.fc21(h1), self.fc22(h1))

        def reparameterize(self, mu, logvar):
            std = torch.exp(0.5 * logvar)
            eps = torch.randn_like(std) * 0
            return mu + eps * std

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

        def forward(self, x):
            mu, logvar = self.encode(x.view(-1, 112))
            z = self.reparameterize(mu, logvar)
            return (self.decode(z), mu, logvar)

    def loss_function(rx, x, mu, logvar):
        BCE = F.binary_cross_entropy(rx, x.view(-1, 112), reduction="sum")
        KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return BCE + KLD

    v = det(VAE())
    opt = torch.optim.Adam(v.parameters(), lr=0.001)
    train_loss = 0
    for i in range(10):
        opt.zero_grad()
        rb, mu, lv = v(x)
        loss = loss_function(rb, x, mu, lv)
        loss.backward()
        train_loss += loss.item()
        opt.step()
    out.append(train_loss)
    return out


def program_gan() -> list[Any]:
    G = det(
        nn.Sequential(
            nn.ConvTranspose2d(8, 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(True),
            nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
    )
    D = det(
        nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )
    )
    criterion = nn.BCELoss()
    optD = torch.optim.Adam(D.parameters(), lr=0.0002, betas=(0.5, 0.999))
    optG = torch.optim.Adam(G.parameters(), lr=0.0002, betas=(0.5, 0.999))
    out = []
    for i in range(5):
        D.zero_grad()
        real = torch.from_numpy(arr(6, 1, 8, 8))
        b = real.size(0)
        label = torch.full((b,), 1.0, dtype=torch.float)
        output = D(real).view(-1)
        errD_real = criterion(output, label)
        errD_real.backward()
        D_x = output.mean().item()
        noise = torch.from_numpy(arr(b, 8, 1, 1))
        fake = G(noise)
        label.fill_(0.0)
        output = D(fake.detach()).view(-1)
        errD_fake = criterion(output, label)
        errD_fake.backward()
        errD = errD_real + errD_fake
        optD.step()
        G.zero_grad()
        label.fill_(1.0)
        output = D(fake).view(-1)
        errG = criterion(output, label)
        errG.backward()
        optG.step()
        out.append((errD.item(), errG.item(), D_x))
    return out


def program_weight_sharing() -> list[Any]:

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(6, 4)
            self.out = nn.Linear(4, 6, bias=False)
            self.out.weight = self.emb.weight

        def forward(self, x):
            return self.out(self.emb(x))

    m = det(Tied())
    opt = torch.optim.SGD(m.parameters(), lr=0.1)
    out = []
    for i in range(5):
        opt.zero_grad()
        l = nn.functional.cross_entropy(m(torch.tensor([1, 2, 3])), torch.tensor([2, 3, 4]))
        l.backward()
        opt.step()
        out.append(l.item())
    shared = nn.Linear(8, 8)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 1))
    det(net)
    net(torch.ones(2, 4)).sum().backward()
    net[2].weight.data[0, 0] = 100
    out.append(shared.weight.grad.tolist())
    return out


def program_freeze_transfer() -> list[Any]:
    backbone = det(nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)))
    for param in backbone.parameters():
        param.requires_grad = False
    backbone[3] = nn.Linear(backbone[3].in_features, 2)
    det(backbone[3])
    opt = torch.optim.SGD(filter(lambda p: p.requires_grad, backbone.parameters()), lr=0.1, momentum=0.9)
    sched = torch.optim.lr_scheduler.StepLR(opt, step_size=7, gamma=0.1)
    x = torch.from_numpy(arr(32, 8))
    y = torch.from_numpy(arr(32, lo=0, hi=2))
    out = []
    best = copy.deepcopy(backbone.state_dict())
    best_acc = 0.0
    w0 = backbone[0].weight.clone()
    for epoch in range(10):
        for phase in ["train", "val"]:
            backbone.train() if phase == "train" else backbone.eval()
            with torch.set_grad_enabled(phase == "train"):
                o = backbone(x)
                _, preds = torch.max(o, 1)
                loss = nn.CrossEntropyLoss()(o, y)
                if phase == "train":
                    opt.zero_grad()
                    loss.backward()
                    opt.step()
            running = loss.item() * x.size(0)
            corr = torch.sum(preds == y.data)
            acc = corr.double() / len(x)
            out.append((running, acc.item()))
            if phase == "val" and acc > best_acc:
                best_acc = acc
                best = copy.deepcopy(backbone.state_dict())
        sched.step()
    backbone.load_state_dict(best)
    return out


EXPECTED = {
    "dqn": [
        0.472025,
        0.474986,
        -0.178302,
        -0.124269,
        -0.269106,
        0.054006,
        0.0226386,
        -0.0067309,
        0.0152148,
        0.400178,
        -0.0131108,
        -0.237593,
    ],
    "reinforce": [-0.12823, -0.123831, 0.196646, -0.176775, -0.0457963],
    "autoencoder_vae": [
        0.140261,
        0.139952,
        0.139649,
        0.139355,
        0.139066,
        0.138786,
        0.138507,
        0.138227,
        0.137947,
        0.137666,
        12686.4,
    ],
    "gan": [
        1.31232,
        0.64874,
        0.569537,
        1.60715,
        0.465311,
        1.37797,
        0.65693,
        0.53545,
        0.66871,
        0.573804,
        1.37405,
        0.538394,
    ],
    "weight_sharing": [
        1.79543,
        0.0,
        0.0,
        0.00127473,
        0.0,
        -0.0530581,
        0.0,
        0.139074,
        0.0,
        0.0,
        0.0,
        -0.0646563,
    ],
    "freeze_transfer": [
        18.6224,
        0.78125,
        0.78125,
        17.7548,
        17.4429,
        0.78125,
        0.78125,
        16.9846,
        16.8431,
        0.78125,
        0.78125,
        0.78125,
    ],
}


def flat(value: Any) -> list[float]:
    return [n for v in value for n in flat(v)] if isinstance(value, (list, tuple)) else [float(value)]


@pytest.mark.parametrize("name", list(EXPECTED))
def test_the_program_gives_pytorchs_numbers(name: str) -> None:
    found = np.array(flat(globals()[f"program_{name}"]()))
    if len(found) > 12:
        found = found[np.linspace(0, len(found) - 1, 12).astype(int)]
    np.testing.assert_allclose(found, EXPECTED[name], rtol=2e-3, atol=1e-4)
