"""Programs about texts and sequences from introductions to PyTorch, with only the imports changed.

Weights and data are NumPy's; the numbers are PyTorch 2.13's for the same.
"""

from __future__ import annotations

import math
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


def program_char_rnn() -> list[Any]:
    letters = "abcdefghij"
    n = len(letters)

    def lineToTensor(line):
        t = torch.zeros(len(line), 1, n)
        for li, letter in enumerate(line):
            t[li][0][letters.find(letter)] = 1
        return t

    class RNN(nn.Module):
        def __init__(self, input_size, hidden_size, output_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
            self.i2o = nn.Linear(input_size + hidden_size, output_size)
            self.softmax = nn.LogSoftmax(dim=1)

        def forward(self, input, hidden):
            combined = torch.cat((input, hidden), 1)
            hidden = self.i2h(combined)
            output = self.i2o(combined)
            return (self.softmax(output), hidden)

        def initHidden(self):
            return torch.zeros(1, self.hidden_size)

    rnn = det(RNN(n, 16, 3))
    criterion = nn.NLLLoss()
    out = []
    random.seed(1)
    for i in range(20):
        cat = random.randrange(3)
        line = "".join(random.choice(letters) for _ in range(random.randint(2, 6)))
        ct = torch.tensor([cat], dtype=torch.long)
        lt = lineToTensor(line)
        hidden = rnn.initHidden()
        rnn.zero_grad()
        for j in range(lt.size()[0]):
            output, hidden = rnn(lt[j], hidden)
        loss = criterion(output, ct)
        loss.backward()
        for p in rnn.parameters():
            p.data.add_(p.grad.data, alpha=-0.05)
        out.append(loss.item())
    top_n, top_i = output.topk(1)
    topv, topi = output.topk(3, 1, True)

    class Gen(nn.Module):
        def __init__(self, i, h, o):
            super().__init__()
            self.hidden_size = h
            self.i2h = nn.Linear(3 + i + h, h)
            self.i2o = nn.Linear(3 + i + h, o)
            self.o2o = nn.Linear(h + o, o)
            self.dropout = nn.Dropout(0.0)
            self.softmax = nn.LogSoftmax(dim=1)

        def forward(self, category, input, hidden):
            c = torch.cat((category, input, hidden), 1)
            hidden = self.i2h(c)
            o = self.i2o(c)
            o = self.o2o(torch.cat((hidden, o), 1))
            return (self.softmax(self.dropout(o)), hidden)

        def initHidden(self):
            return torch.zeros(1, self.hidden_size)

    g = det(Gen(n, 16, n + 1))
    line = "abcde"
    inp = lineToTensor(line)
    tgt = torch.LongTensor([letters.find(l) for l in line[1:]] + [n])
    tgt.unsqueeze_(-1)
    cat = torch.zeros(1, 3)
    cat[0][1] = 1
    for it in range(10):
        h = g.initHidden()
        g.zero_grad()
        loss = torch.Tensor([0])
        for i in range(inp.size(0)):
            o, h = g(cat, inp[i], h)
            l = criterion(o, tgt[i])
            loss += l
        loss.backward()
        for p in g.parameters():
            p.data.add_(p.grad.data, alpha=-0.05)
        out.append(loss.item() / inp.size(0))
    with torch.no_grad():
        input = lineToTensor("a")
        h = g.initHidden()
        s = "a"
        for i in range(5):
            o, h = g(cat, input[0], h)
            topv, topi = o.topk(1)
            topi = topi[0][0]
            if topi == n:
                break
            s += letters[topi]
            input = lineToTensor(letters[topi])
    lstm = det(nn.LSTM(n, 8))
    emb = lineToTensor("abc")
    o, (h, c) = lstm(emb)
    out.append(o.tolist())
    rnn2 = det(nn.RNN(n, 8, batch_first=True))
    packed = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(arr(3, n)), torch.from_numpy(arr(2, n))], batch_first=True
    )
    out.append(rnn2(packed)[1].tolist())
    return out


def program_seq2seq_attention() -> list[Any]:
    MAX = 6
    H = 12
    V = 9

    class EncoderRNN(nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.hidden_size = hidden_size
            self.embedding = nn.Embedding(input_size, hidden_size)
            self.gru = nn.GRU(hidden_size, hidden_size)

        def forward(self, input, hidden):
            embedded = self.embedding(input).view(1, 1, -1)
            output = embedded
            output, hidden = self.gru(output, hidden)
            return (output, hidden)

        def initHidden(self):
            return torch.zeros(1, 1, self.hidden_size)

    class AttnDecoderRNN(nn.Module):
        def __init__(self, hidden_size, output_size, dropout_p=0.0, max_length=MAX):
            super().__init__()
            self.embedding = nn.Embedding(output_size, hidden_size)
            self.attn = nn.Linear(hidden_size * 2, max_length)
            self.attn_combine = nn.Linear(hidden_size * 2, hidden_size)
            self.dropout = nn.Dropout(dropout_p)
            self.gru = nn.GRU(hidden_size, hidden_size)
            self.out = nn.Linear(hidden_size, output_size)

        def forward(self, input, hidden, encoder_outputs):
            embedded = self.embedding(input).view(1, 1, -1)
            embedded = self.dropout(embedded)
            attn_weights = F.softmax(self.attn(torch.cat((embedded[0], hidden[0]), 1)), dim=1)
            attn_applied = torch.bmm(attn_weights.unsqueeze(0), encoder_outputs.unsqueeze(0))
            output = torch.cat((embedded[0], attn_applied[0]), 1)
            output = self.attn_combine(output).unsqueeze(0)
            output = F.relu(output)
            output, hidden = self.gru(output, hidden)
            output = F.log_softmax(self.out(output[0]), dim=1)
            return (output, hidden, attn_weights)

    enc = det(EncoderRNN(V, H))
    dec = det(AttnDecoderRNN(H, V))
    eo = torch.optim.SGD(enc.parameters(), lr=0.05)
    do = torch.optim.SGD(dec.parameters(), lr=0.05)
    criterion = nn.NLLLoss()
    out = []
    for it in range(4):
        src = torch.tensor([3, 4, 5, 1], dtype=torch.long).view(-1, 1)
        tgt = torch.tensor([5, 4, 1], dtype=torch.long).view(-1, 1)
        h = enc.initHidden()
        eo.zero_grad()
        do.zero_grad()
        encoder_outputs = torch.zeros(MAX, H)
        loss = 0
        for ei in range(src.size(0)):
            o, h = enc(src[ei], h)
            encoder_outputs[ei] = o[0, 0]
        decoder_input = torch.tensor([[0]])
        dh = h
        for di in range(tgt.size(0)):
            o, dh, att = dec(decoder_input, dh, encoder_outputs)
            loss += criterion(o, tgt[di])
            if it % 2:
                decoder_input = tgt[di]
            else:
                topv, topi = o.topk(1)
                decoder_input = topi.squeeze().detach()
                if decoder_input.item() == 1:
                    break
        loss.backward()
        eo.step()
        do.step()
        out.append(loss.item() / tgt.size(0))
    return out


def program_embeddings_ngram() -> list[Any]:
    word_to_ix = {"hello": 0, "world": 1}
    embeds = det(nn.Embedding(2, 5))
    text = ["When", "forty", "winters", "shall", "besiege", "thy", "brow,", "And", "dig", "deep", "trenches", "in", "thy", "beauty's", "field"]
    ngrams = [([text[i - j - 1] for j in range(2)], text[i]) for i in range(2, len(text))]
    vocab = sorted(set(text))
    w2i = {w: i for i, w in enumerate(vocab)}

    class NGram(nn.Module):
        def __init__(self, v, e, c):
            super().__init__()
            self.embeddings = nn.Embedding(v, e)
            self.linear1 = nn.Linear(c * e, 16)
            self.linear2 = nn.Linear(16, v)

        def forward(self, inputs):
            embeds = self.embeddings(inputs).view((1, -1))
            out = F.relu(self.linear1(embeds))
            out = self.linear2(out)
            return F.log_softmax(out, dim=1)

    losses = []
    loss_function = nn.NLLLoss()
    model = det(NGram(len(vocab), 10, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(3):
        total = 0
        for context, target in ngrams:
            idx = torch.tensor([w2i[w] for w in context], dtype=torch.long)
            model.zero_grad()
            lp = model(idx)
            loss = loss_function(lp, torch.tensor([w2i[target]], dtype=torch.long))
            loss.backward()
            opt.step()
            total += loss.item()
        losses.append(total)
    losses.append(model.embeddings.weight[w2i["brow,"]].tolist())

    class CBOW(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Embedding(5, 3, padding_idx=0)
            self.l = nn.Linear(3, 5)

        def forward(self, x):
            return self.l(self.embeddings(x).sum(dim=0)).view(1, -1)

    m = det(CBOW())
    l = F.cross_entropy(m(torch.tensor([1, 0, 3])), torch.tensor([2]))
    l.backward()
    losses.append(m.embeddings.weight.grad.tolist())
    emb = nn.Embedding.from_pretrained(torch.FloatTensor([[1, 2.3, 3], [4, 5.1, 6.3]]))
    lstm = det(nn.LSTM(3, 3))
    inputs = [torch.from_numpy(arr(1, 3)) for _ in range(5)]
    hidden = (torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
    for i in inputs:
        o, hidden = lstm(i.view(1, 1, -1), hidden)
    inp = torch.cat(inputs).view(len(inputs), 1, -1)
    o, hidden = lstm(inp, (torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)))
    losses.append(o.tolist())
    return losses


def program_transformer() -> list[Any]:

    class PositionalEncoding(nn.Module):
        def __init__(self, d_model, dropout=0.0, max_len=50):
            super().__init__()
            self.dropout = nn.Dropout(p=dropout)
            position = torch.arange(max_len).unsqueeze(1)
            div = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
            pe = torch.zeros(max_len, 1, d_model)
            pe[:, 0, 0::2] = torch.sin(position * div)
            pe[:, 0, 1::2] = torch.cos(position * div)
            self.register_buffer("pe", pe)

        def forward(self, x):
            x = x + self.pe[: x.size(0)]
            return self.dropout(x)

    class TM(nn.Module):
        def __init__(self, ntoken, d, h, dh, nl):
            super().__init__()
            self.pos = PositionalEncoding(d)
            el = nn.TransformerEncoderLayer(d, h, dh, 0.0)
            self.te = nn.TransformerEncoder(el, nl, enable_nested_tensor=False)
            self.embedding = nn.Embedding(ntoken, d)
            self.d = d
            self.linear = nn.Linear(d, ntoken)
            self.init_weights()

        def init_weights(self):
            r = 0.1
            self.embedding.weight.data.uniform_(-r, r)
            self.linear.bias.data.zero_()
            self.linear.weight.data.uniform_(-r, r)

        def forward(self, src, mask=None):
            src = self.embedding(src) * math.sqrt(self.d)
            src = self.pos(src)
            if mask is None:
                mask = nn.Transformer.generate_square_subsequent_mask(len(src))
            return self.linear(self.te(src, mask))

    m = det(TM(11, 8, 2, 16, 2))
    opt = torch.optim.SGD(m.parameters(), lr=0.5)
    out = []
    data = torch.from_numpy(arr(13, 4, lo=0, hi=11))
    for i in range(5):
        x = data[:-1]
        y = data[1:].reshape(-1)
        o = m(x)
        l = nn.CrossEntropyLoss()(o.view(-1, 11), y)
        opt.zero_grad()
        l.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 0.5)
        opt.step()
        out.append(l.item())
    m.eval()
    out.append(m(data[:3]).tolist())
    return out


EXPECTED = {
    "char_rnn": [
        0.780658,
        0.762391,
        0.718891,
        1.03285,
        0.753671,
        0.089459,
        -0.0782725,
        -0.10393,
        -0.066525,
        0.113629,
        -0.239164,
        -0.199225,
    ],
    "seq2seq_attention": [2.25901, 2.18947, 2.11313, 2.05375],
    "embeddings_ngram": [
        34.8186,
        0.151084,
        -0.03427,
        0.2858,
        0.0,
        0.0,
        -0.444884,
        0.0,
        -0.10662,
        0.00197102,
        0.0323173,
        -0.179515,
    ],
    "transformer": [
        2.42498,
        -0.356838,
        0.37787,
        0.120927,
        -0.31766,
        -0.137872,
        0.193581,
        0.722441,
        0.250954,
        -0.361472,
        0.378556,
        0.121713,
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
