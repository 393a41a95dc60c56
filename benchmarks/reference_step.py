"""The training step in the shape of the public code: what ours is timed against, with the same losses and gradients.

Three encoder passes, one per branch; positive masks and same-label masks built on the host and copied over; queues
stored (D, K), cloned for every use and written at positions read back to the host; a moving average that makes new
tensors in a Python loop and rebinds `param.data`; confident samples picked by boolean indexing; the loss read after
every step. Written from a description of that code's behaviour, on any device, of our weights, so that the two sides
can be compared.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prosl_lightning import ProSLModule
from prosl_lightning.encoders.hico import HiCoEncoder, space_major, time_major

Views = tuple[Tensor, Tensor, Tensor | None]
LEVELWISE = ("clip", "part")  # terms with several positives, one per level of the key
QUEUE_OF = {"clip": "clip", "part": "part", "temporal": "spatial", "spatial": "temporal", "instance": "instance"}


def project(encoder: HiCoEncoder, clips: Tensor) -> dict[str, Tensor]:
    """The HiCo encoder's projections, rows of unit length, in plain one-dimensional operations.

    Args:
        encoder: Its weights are used, its `forward` is not.
        clips: (N, C, T, V, M).
    """
    time, space = _levels(encoder.time_branch, time_major(clips)), _levels(encoder.space_branch, space_major(clips))
    all_time, all_space = time.flatten(1), space.flatten(1)
    inputs = {"clip": time, "part": space, "temporal": all_time, "spatial": all_space}
    inputs["instance"] = torch.cat([all_time, all_space], dim=1)
    return {name: F.normalize(encoder.projectors[name](x).float(), dim=-1) for name, x in inputs.items()}


def _levels(branch: Any, tokens: Tensor) -> Tensor:
    tokens, levels = branch.embedding(tokens), []
    for level in range(branch.granularity):
        if level:
            down = branch.downsampling
            padding = down.convolution.kernel_size[0] // 2
            mixed = F.conv1d(
                tokens.permute(0, 2, 1), down.convolution.weight, down.convolution.bias, padding=padding,
                groups=tokens.shape[2],
            )  # fmt: skip
            active = F.relu(down.norm(mixed.permute(0, 2, 1)))
            tokens = F.max_pool1d(active.permute(0, 2, 1), 2).permute(0, 2, 1)
        encoded = branch.sequence(tokens)
        encoded = encoded[0] if isinstance(encoded, tuple) else encoded
        levels.append(encoded.max(dim=1)[0].unsqueeze(1))
    return torch.cat(levels, dim=1)


class ReferenceStep:
    """A reference-shaped step on copies of a module's encoders, banks and codebook; the module is left alone.

    Args:
        module: A `hico-*` module on its device; with a built codebook the step is the semantic stage's (Eq. 12), else
            the contrast stage's (Eq. 11), and with `semantic=False` the base method's alone.

    Attributes:
        query: The trained encoder.
        key: Its moving average.
        queues: Name -> features (D, K).
        optimizer: SGD with the module's options.
    """

    def __init__(self, module: ProSLModule) -> None:
        self.options = module.hparams
        self.threshold = module.confidence_threshold
        self.query, self.key = copy.deepcopy(module.query_encoder), copy.deepcopy(module.key_encoder)
        self.queues = {name: bank.features.T.clone().contiguous() for name, bank in module.banks.items()}
        self.queue_index = {name: bank.index.clone() for name, bank in module.banks.items()}
        self.pointers = {name: bank.pointer.reshape(1).clone() for name, bank in module.banks.items()}
        # `full` is ours; the public code's own pointer wraps too early, see MemoryBank.
        self.wraps = {name: bank._wrap for name, bank in module.banks.items()}
        built = module.codebook.is_built
        self.centroids = module.codebook.centroids.clone() if built else None
        self.labels = module.codebook.assignment.cpu().numpy() if built else None
        self.optimizer = torch.optim.SGD(
            self.query.parameters(), self.options["learning_rate"], self.options["sgd_momentum"],
            weight_decay=self.options["weight_decay"],
        )  # fmt: skip

    def train(self, views: Views, index: Tensor, bf16: bool = False) -> float:
        """One whole step of query, key and semantic views (N, C, T, V, M) and rows (N,): the loss as a number."""
        with torch.autocast(index.device.type, torch.bfloat16, enabled=bf16):
            losses = self.losses(*views, index)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def losses(
        self, query_view: Tensor, key_view: Tensor, semantic_view: Tensor | None, index: Tensor
    ) -> dict[str, Tensor]:
        """The terms of the loss by the names of our step; updates the key encoder and the queues."""
        query = project(self.query, query_view)
        semantic = None if semantic_view is None else project(self.query, semantic_view)
        with torch.no_grad():
            self._update_key_encoder()
            key = project(self.key, key_view)
        with torch.autocast(index.device.type, enabled=False):
            losses = self._contrast(query, key, index) | self._semantic(query, semantic, index)
        for name in self.queues:
            self._enqueue(name, key[name], index)
        return losses

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        momentum = self.options["momentum"]
        for trained, average in zip(self.query.parameters(), self.key.parameters(), strict=True):
            average.data = average.data * momentum + trained.data * (1.0 - momentum)

    def _contrast(self, query: dict[str, Tensor], key: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
        losses = {}
        for term, queue_name in QUEUE_OF.items():
            queue, positive = self.queues[queue_name].clone().detach(), key[queue_name]
            if term in LEVELWISE:
                anchor = query[term][:, 0]
                similar = torch.einsum("nc,nlc->nl", anchor, positive)
            else:
                anchor = query[term]
                similar = torch.einsum("nc,nc->n", anchor, positive).unsqueeze(-1)
            negative = torch.einsum("nc,ck->nk", anchor, queue)
            if self._filtered(term):
                negative = negative.masked_fill(self._same_label(queue_name, index), -torch.inf)
            logits = torch.cat([similar, negative], dim=1) / self.options["temperature"]
            if term in LEVELWISE:
                mask = torch.zeros(logits.shape)
                mask[:, : similar.shape[1]] = 1
                mask = mask.to(logits.device)
                log_probability = F.log_softmax(logits, dim=1)
                losses[term] = -(log_probability.exp() * mask).sum(dim=1).log().mean()
            else:
                target = torch.zeros(len(logits), dtype=torch.long).to(logits.device)
                losses[term] = F.cross_entropy(logits, target)
        return losses

    def _filtered(self, term: str) -> bool:
        return self.centroids is not None and (self.options["filtered_terms"] == "all" or term == "instance")

    def _same_label(self, queue_name: str, index: Tensor) -> Tensor:
        """Bank entries with the anchor's label, (N, K) bool, looked up on the host."""
        assert self.labels is not None
        stored = self.queue_index[queue_name].cpu().numpy()
        of_queue = np.where(stored >= 0, self.labels[np.maximum(stored, 0)], -1)
        of_batch = self.labels[index.cpu().numpy()]
        same = (of_batch[:, None] == of_queue[None, :]) & (of_queue >= 0)[None, :]
        return torch.from_numpy(same).to(index.device)

    def _semantic(
        self, query: dict[str, Tensor], semantic: dict[str, Tensor] | None, index: Tensor
    ) -> dict[str, Tensor]:
        losses, branches = {}, {"query": query["instance"]}
        if semantic is not None:
            branches["branch"] = semantic["instance"]
            queue, temperature = self.queues["instance"].clone().detach(), self.options["temperature"]
            of_query = F.softmax(query["instance"].detach() @ queue / temperature, dim=1)
            of_branch = F.softmax(semantic["instance"] @ queue / temperature, dim=1)
            first, second = (of_branch, of_query)
            if self.options["kl_direction"] == "query-to-semantic":
                first, second = second, first
            losses["kl"] = (first * (first.log() - second.log())).sum(dim=1).mean()
        if self.centroids is None or self.labels is None:
            return losses
        labels = torch.from_numpy(self.labels[index.cpu().numpy()]).to(index.device)
        for name, features in branches.items():
            y = F.softmax(features @ self.centroids.T / self.options["semantic_temperature"], dim=1)
            best, nearest = y.max(dim=1)
            confident = (nearest == labels) & (best > self.threshold)
            kept = y[confident].gather(1, labels[confident].unsqueeze(1))
            losses[f"semantic_{name}"] = -kept.log().mean() if len(kept) else features.sum() * 0
        return losses

    @torch.no_grad()
    def _enqueue(self, name: str, features: Tensor, index: Tensor) -> None:
        rows, queue = features.reshape(-1, features.shape[-1]), self.queues[name]
        begin = int(self.pointers[name])  # waits for the device
        where = [(begin + i) % queue.shape[1] for i in (0, len(rows))]
        samples = index.repeat_interleave(len(rows) // len(index))
        if where[1] > where[0]:
            queue[:, where[0] : where[1]] = rows.T
            self.queue_index[name][where[0] : where[1]] = samples
        else:  # the batch runs over the end
            first = queue.shape[1] - where[0]
            queue[:, where[0] :], queue[:, : where[1]] = rows[:first].T, rows[first:].T
            self.queue_index[name][where[0] :], self.queue_index[name][: where[1]] = samples[:first], samples[first:]
        self.pointers[name][0] = (begin + len(rows)) % self.wraps[name]


class OurStep:
    """The library's own step on a copy of a module, without Lightning's loop: the other side of the comparison.

    Args:
        module: As for :class:`ReferenceStep`.
    """

    def __init__(self, module: ProSLModule) -> None:
        self.module = copy.deepcopy(module)
        self.optimizer = self.module.configure_optimizers()["optimizer"]

    def train(self, views: Views, index: Tensor, bf16: bool = False) -> Tensor:
        """One whole step, as in :meth:`ReferenceStep.train`; the loss stays on the device."""
        with torch.autocast(index.device.type, torch.bfloat16, enabled=bf16):
            loss = self.module.losses(*views, index)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def disagreement(module: ProSLModule, views: Views, index: Tensor) -> dict[str, float]:
    """Largest relative differences between the two sides in one step of copies of `module`.

    Returns:
        `losses`, the worst term's; `gradient`, `banks` and `key_encoder`, of their norms.
    """
    reference, ours = ReferenceStep(module), copy.deepcopy(module)
    expected, found = reference.losses(*views, index), ours.losses(*views, index)
    torch.stack(list(expected.values())).sum().backward()
    found["loss"].backward()
    worst = max(
        float((found[name] - value).detach().abs() / value.detach().abs().clamp_min(1e-6))
        for name, value in expected.items()
    )
    pairs = {
        "gradient": (_gradient(reference.query), _gradient(ours.query_encoder)),
        "banks": (
            torch.cat([queue.T.flatten() for queue in reference.queues.values()]),
            torch.cat([bank.features.flatten() for bank in ours.banks.values()]),
        ),
        "key_encoder": (_parameters(reference.key), _parameters(ours.key_encoder)),
    }
    return {"losses": worst} | {n: float((b - a).norm() / a.norm().clamp_min(1e-12)) for n, (a, b) in pairs.items()}


def _gradient(encoder: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])


def _parameters(encoder: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])
