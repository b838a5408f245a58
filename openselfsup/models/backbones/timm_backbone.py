"""Every network of timm that offers feature maps: ViTs with their tokens, ConvNeXt, and others."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...checkpoints import (
    LoadReport,
    fitted_transformer,
    plain_weights,
    summary,
    transformer_of,
    usual_resizing,
    weights_of,
)
from ...errors import UserError, nearest
from ...registry import BACKBONES
from ...values import BelowOne, Count, Filled
from ..drop_path import set_drop_path
from ..positions import RESIZINGS, Resizing, resize_positions
from .resnet import load_initial_weights

Feature = Literal['cls', 'mean', 'cls_mean']
_VITS = ('vision_transformer', 'eva', 'deit')  # modules of timm


@dataclass
class Tokens:
    """What a ViT makes of images, after its final norm.

    Attributes:
        cls: class tokens (B, D); None where the network has none.
        registers: register tokens (B, R, D), R from 0.
        patches: patch tokens (B, N, D), row by row.
        grid: (h, w) of the patches, N = h·w.
    """

    cls: Tensor | None
    registers: Tensor
    patches: Tensor
    grid: tuple[int, int]

    def feature(self, kind: Feature) -> Tensor:
        """Return one vector of each image: (B, D), or (B, 2D) for 'cls_mean'."""
        mean = self.patches.mean(1)
        if self.cls is None or kind == 'mean':
            return mean
        return self.cls if kind == 'cls' else torch.cat([self.cls, mean], 1)


@BACKBONES.register_module()
class TimmBackbone(nn.Module):
    """A network of timm without its classifier; nothing is downloaded.

    ``forward`` returns feature maps like those of a ResNet. Those of a ViT are its patch tokens,
    normed; :meth:`tokens` returns the others beside them. A ViT takes images of any size that is
    a multiple of its patch, not square ones too. Layers after the last of ``out_indices`` do not
    exist.

    Args:
        model: timm's name of the network, such as 'vit_small_patch14_reg4_dinov2', 'resnet50' or
            'convnext_tiny'; what follows a point, timm's name of weights, is not heeded.
        img_size: side of the images that a ViT's positions are made for, timm's if None.
        drop_path: rate of stochastic depth; from 0 in the first block to this in the last.
        uniform_drop_path: the same rate in every block (DINOv2).
        out_indices: maps to return, in rising order: blocks of a ViT, stages of other networks,
            from 0, or from the end if negative; the last one if None.
        in_channels: channels of the images.
        resizing: how a ViT's positions are fitted to other grids, see
            :func:`openselfsup.models.positions.resize_positions`; weights want the rule that they
            were trained with. If None, 'dino' for timm's DINOv2 without registers, else 'timm'.
        feature: what stands for a whole image in evaluation: a ViT's class token, the mean of its
            patch tokens, or both joined, as for Virchow; None is what was trained: the mean in
            a run of a method that compares maps, else the class token. Other networks have the
            mean.
        recompute: whether activations are computed again in the backward pass, to save memory.
        init_cfg: weights to start from, as for a ResNet.
        arguments: further arguments of timm's network, such as ``embed_dim``, ``depth``,
            ``num_heads``, ``patch_size``, ``init_values``, ``reg_tokens``, ``no_embed_class``.
            A layer is named as in ``timm.layers``: ``mlp_layer='SwiGLUPacked'``.

    Attributes:
        net: timm's network.
        mask_token: (1, 1, D), learnt, what stands for a masked patch; ViTs only.
        out_channels: channels of each returned feature map.
        strides: pixels between their cells.
        stages: the stage of each map as ResNets count them, 1 to 4 for strides 4 to 32; the maps
            of a ViT, which have one stride, are the last stages in their order.
        patch_size: side of a ViT's patch in pixels, None for other networks.
        load_report: how many tensors ``init_cfg`` filled, None without it.

    Raises:
        UserError: timm has no such network or argument, or it offers no feature maps.
    """

    net: Any  # timm's networks have no common type
    num_registers: int
    may_lack = ('mask_token',)  # timm's files lack it

    def __init__(self, model: str, img_size: Count | None = None, drop_path: BelowOne = 0.,
                 uniform_drop_path: bool = False,
                 out_indices: Annotated[Sequence[int], Filled()] | None = None,
                 in_channels: Count = 3, resizing: Resizing | None = None,
                 feature: Feature | None = None, recompute: bool = False,
                 init_cfg: dict | None = None, **arguments: Any):
        super().__init__()
        self.is_vit = _module_of(model).rpartition('.')[2] in _VITS
        for name, value, choices in (('resizing', resizing, (None, *RESIZINGS)),
                                     ('feature', feature, (None, *get_args(Feature)))):
            if value not in choices:
                raise UserError(f'{name} is {value!r}', where=f'model.backbone.{name}',
                                expected='one of ' + ', '.join(map(str, choices)))
        # A patch that is left out would leave a hole in the grid.
        if arguments.get('patch_drop_rate'):
            raise UserError('patches cannot be dropped: cells of two views are compared by their '
                            'places', where='model.backbone.patch_drop_rate', expected='0')
        drop_path = drop_path or arguments.pop('drop_path_rate', 0.)  # timm's name of it
        given = dict(arguments, in_chans=in_channels)
        if img_size is not None:
            given['img_size'] = img_size
        if drop_path:
            given['drop_path_rate'] = drop_path
        if self.is_vit:
            given.update(dynamic_img_size=True, global_pool='')
        self.net = _network(model, given)
        self.out_indices = self._kept(out_indices)
        info = [self.net.feature_info[index] for index in self.out_indices]
        self.out_channels = [one['num_chs'] for one in info]
        self.strides = [one['reduction'] for one in info]
        self.patch_size: int | None = None
        self.feature: Feature = feature or 'cls'
        self.recompute = recompute
        self.stages = tuple(max(stride, 2).bit_length() - 2 for stride in self.strides)
        if self.is_vit:
            self.patch_size = self.net.patch_embed.patch_size[0]
            self.strides = [self.patch_size] * len(info)
            self.stages = tuple(range(5 - len(info), 5))
            self.mask_token = nn.Parameter(torch.zeros(1, 1, self.out_channels[-1]))
            token = self.net.reg_token
            self.num_registers = 0 if token is None else token.shape[1]
            self.resizing = resizing or usual_resizing(model, self.num_registers)
        elif recompute:
            self.net.set_grad_checkpointing()
        if drop_path:
            set_drop_path(self.net, drop_path if uniform_drop_path else None)
        self.load_report: LoadReport | None = (
            load_initial_weights(self, init_cfg) if init_cfg is not None else None)

    def _kept(self, out_indices: Sequence[int] | None) -> tuple[int, ...]:
        """Cut the network behind the last wanted map; return which maps are wanted, from 0."""
        count = len(self.net.feature_info)
        wanted = (-1,) if out_indices is None else tuple(out_indices)
        indices = tuple(index + count if index < 0 else index for index in wanted)
        if not set(indices) <= {*range(count)} or list(indices) != sorted({*indices}):
            raise UserError(f'out_indices is {wanted}', where='model.backbone.out_indices',
                            expected=f'numbers from 0 to {count - 1} in rising order')
        self.net.prune_intermediate_layers(list(indices), prune_norm=not self.is_vit,
                                           prune_head=True)
        if not self.is_vit and hasattr(self.net, 'head'):
            self.net.head = nn.Identity()  # some of timm's keep a norm in it
        return indices

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (B, in_channels, H, W) to feature maps (B, C, h, w), the finest first.

        Raises:
            UserError: a ViT is given a side that is no multiple of its patch.
        """
        if not self.is_vit:
            return self.net.forward_intermediates(x, indices=list(self.out_indices),
                                                  intermediates_only=True, stop_early=True)
        found, grid = self._blocks(x, None, self.out_indices)
        return [tokens[:, self.net.num_prefix_tokens:].transpose(1, 2).unflatten(2, grid)
                for tokens in found]

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile as ``nn.Module.compile`` does; of a ViT each of its blocks."""
        if not self.is_vit:
            super().compile(*arguments, **options)
            return
        for block in self.net.blocks:
            block.compile(*arguments, **options)

    def tokens(self, x: Tensor, mask: Tensor | None = None) -> Tokens:
        """Return all tokens of a ViT's last block, normed.

        Args:
            x: images (B, in_channels, H, W).
            mask: bool (B, N), row by row: patches whose embeddings are replaced by
                ``mask_token``, before their position is added.

        Raises:
            UserError: the network is no ViT, or a side is no multiple of its patch.
        """
        if not self.is_vit:
            raise UserError(f'a {type(self.net).__name__} has no tokens',
                            where='model.backbone.model', expected="a ViT, such as "
                            "'vit_small_patch16_224'")
        (found,), grid = self._blocks(x, mask, self.out_indices[-1:])
        before, registers = self.net.num_prefix_tokens, self.num_registers
        return Tokens(found[:, 0] if before > registers else None,
                      found[:, before - registers:before], found[:, before:], grid)

    def image_features(self, x: Tensor) -> Tensor:
        """Return one vector of each image (B, C), what evaluation takes of it; see ``feature``."""
        if self.is_vit:
            return self.tokens(x).feature(self.feature)
        return self(x)[-1].mean((2, 3))

    def adapted_weights(self, checkpoint: Mapping[str, Any],
                        where: str | None = None) -> tuple[dict[str, Tensor], str]:
        """Return published weights under the names of this module, and whose names they had.

        Args:
            checkpoint: what a file holds: weights of timm, or of a ViT of DINO, iBOT, DINOv2,
                DINOv3 or Hugging Face; for a ResNet of timm, of any kind that is known.
            where: path of the file, for messages.

        Raises:
            UserError: there is no such network in it, its positions are of another grid, or want
                another ``resizing`` than they would get.
        """
        own = {name.removeprefix('net.'): value for name, value in self.state_dict().items()}
        state = weights_of(checkpoint)
        if not self.is_vit:
            return plain_weights(checkpoint, state, own, where)
        found = transformer_of(state, 'teacher' in checkpoint and 'student' in checkpoint)
        if found is None:
            raise UserError(f'no vision transformer in this checkpoint; found '
                            f'{summary(checkpoint)}', where=where,
                            expected='weights named as by DINO, iBOT, DINOv2, DINOv3, timm or '
                            "Hugging Face's ViT, Dinov2 and DINOv3 models")
        if found.resizing not in ('', self.resizing) and self.net.pos_embed is not None:
            raise UserError(f"these weights were trained with positions resized as '"
                            f"{found.resizing}', the model resizes them as '{self.resizing}'",
                            where=where, expected=f"resizing='{found.resizing}' in model.backbone")
        fitted = fitted_transformer(found, own, where)
        return {name if name == 'mask_token' else f'net.{name}': value
                for name, value in fitted.items()}, found.kind

    def check_reading(self, config: Mapping[str, Any] | None, where: str | None = None) -> None:
        """Refuse weights of ours that were trained in a network which reads them otherwise.

        Args:
            config: what that network was built from; None if that is unknown.
            where: path of the file, for messages.

        Raises:
            UserError: heads, activations, epsilons of norms or the resizing of positions differ:
                no tensor tells them.
        """
        if config is None or config.get('type') != 'TimmBackbone':
            return
        with torch.device('meta'):
            other = TimmBackbone(**{
                key: value for key, value in config.items() if key not in (
                    'type', 'init_cfg', 'drop_path', 'drop_path_rate', 'uniform_drop_path')})
        own, theirs = self._reading(), other._reading()
        differing = [key for key in own if key in theirs and own[key] != theirs[key]]
        if differing:
            key = differing[0]
            raise UserError(f'these weights were trained with {key} {theirs[key]}, the model has '
                            f'{own[key]}', where=where,
                            expected='model.backbone as the run of these weights had it')

    def _reading(self) -> dict[str, Any]:
        """Return what the network does with its weights, by names of its parts."""
        found: dict[str, Any] = {}
        if self.is_vit and self.net.pos_embed is not None:
            found['resizing'] = self.resizing
        for name, module in self.net.named_modules():
            found |= {f'{name}.{key}': vars(module)[key] for key in ('num_heads', 'eps')
                      if key in vars(module)}
            if name.rpartition('.')[2].startswith('act'):
                found[name] = ' '.join([type(module).__name__,
                                        *vars(module).get('approximate', '').split()])
        return found

    def _blocks(self, x: Tensor, mask: Tensor | None, indices: Sequence[int]
                ) -> tuple[list[Tensor], tuple[int, int]]:
        """Return the normed tokens (B, prefix + N, D) after some blocks, and the grid."""
        x, rope, grid = self._embed(x, mask)
        found = []
        for i, block in enumerate(self.net.blocks):
            options: dict[str, Any] = {} if rope is None else dict(
                rope=rope[i] if getattr(self.net, 'rope_mixed', False) else rope)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False, **options)
            else:
                x = block(x, **options)
            if i in indices:
                found.append(self.net.norm(x))
        return found, grid

    def _embed(self, x: Tensor, mask: Tensor | None
               ) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Return what enters the first block, rotary positions where there are any, the grid."""
        net, patch, sides = self.net, self.patch_size, tuple(x.shape[-2:])
        assert patch is not None, 'asked of ViTs only'
        if any(side % patch for side in sides):
            raise UserError(
                f'images of {sides[0]} x {sides[1]} px do not divide into patches of {patch} px',
                where='size of the images', expected='sides that are multiples of it, '
                'such as ' + ' x '.join(str(max(round(side / patch), 1) * patch)
                                        for side in sides))
        patches = net.patch_embed(x)  # B x h x w x D
        grid = tuple(patches.shape[1:3])
        patches = patches.flatten(1, 2)
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        prefix = [token.expand(len(x), -1, -1) for token in (net.cls_token, net.reg_token)
                  if token is not None]
        if mask is None and torch.is_grad_enabled() and self.mask_token.requires_grad:
            patches = patches + 0 * self.mask_token  # DDP finds no parameter unused
        if net.pos_embed is None:
            tokens = torch.cat([*prefix, patches], 1)
        elif net.no_embed_class:
            tokens = torch.cat([*prefix, patches + self._positions(grid, 0)], 1)
        else:
            tokens = torch.cat([*prefix, patches], 1) + self._positions(
                grid, net.num_prefix_tokens)
        rope = net.rope.get_embed(shape=grid) if getattr(net, 'rope', None) is not None else None
        return net.norm_pre(net.pos_drop(tokens)), rope, grid

    def _positions(self, grid: tuple[int, int], prefix: int) -> Tensor:
        return resize_positions(self.net.pos_embed, tuple(self.net.patch_embed.grid_size), grid,
                                prefix, self.resizing)


def _module_of(model: str) -> str:
    """Return the module of timm that defines a network.

    Raises:
        UserError: timm has none of that name.
    """
    import timm
    name = model.partition('.')[0]
    if not timm.is_model(name):
        raise UserError(f"timm {timm.__version__} has no network called '{model}'",
                        where='model.backbone.model',
                        expected="a name that timm.list_models() gives, such as "
                                 "'vit_small_patch14_reg4_dinov2'",
                        nearest=nearest(name, timm.list_models()))
    return timm.model_entrypoint(name).__module__


def _network(model: str, given: dict[str, Any]) -> Any:
    """Return a network of timm, randomly initialised, that can be asked for feature maps."""
    import timm
    for key, value in given.items():
        if key.endswith('_layer') and isinstance(value, str):
            layer = getattr(timm.layers, value, None)
            if isinstance(layer, (type, functools.partial)):  # 'gelu' is a function there
                given[key] = layer
    try:
        net = timm.create_model(model.partition('.')[0], pretrained=False, num_classes=0, **given)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f'timm cannot build {model}: {error}', where='model.backbone',
                        expected="arguments that timm's network takes") from None
    if not hasattr(net, 'forward_intermediates') or not hasattr(net, 'prune_intermediate_layers'):
        raise UserError(f"timm's {model} does not offer its feature maps",
                        where='model.backbone.model',
                        expected='a network that does, such as a ResNet, a ConvNeXt or a ViT')
    return net
