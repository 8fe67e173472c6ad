"""The architectures that are exported: seven with fresh weights too, many more, and `REST`.

Nothing but the standard library: the export runs in an environment without this project.
"""

from __future__ import annotations

from dataclasses import dataclass

OPSET = 17
SUITES = {
    "tv": "torchvision",
    "seg": "torchvision.models.segmentation",
    "det": "torchvision.models.detection",
    "timm": "timm",
}


@dataclass(frozen=True)
class Architecture:
    """`suite` is a key of SUITES; the image is square; `arguments` go to the constructor."""

    suite: str
    name: str
    size: int = 224
    arguments: tuple[tuple[str, object], ...] = ()

    @property
    def file(self) -> str:
        """The name of the exported file, without its ending."""
        return self.name if self.suite == "tv" else f"{self.suite}_{self.name}"


SEVEN = (
    "resnet50",
    "mobilenet_v2",
    "vit_b_16",
    "convnext_tiny",
    "efficientnet_b0",
    "swin_t",
    "densenet121",
)
_UNINITIALIZED = (("init_weights", False),)
_NAMES = {
    ("tv", 224): """
        resnet18 mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x1_0 squeezenet1_1 mnasnet1_0
        regnet_x_400mf regnet_y_400mf efficientnet_v2_s resnext50_32x4d wide_resnet50_2 alexnet
        vgg11_bn vit_b_32 swin_v2_t maxvit_t
        """,
    ("seg", 224): "lraspp_mobilenet_v3_large deeplabv3_mobilenet_v3_large fcn_resnet50",
    ("timm", 224): """
        deit_tiny_patch16_224 mixer_s32_224 gmlp_s16_224 levit_128s poolformer_s12
        efficientformer_l1 ghostnet_100 hrnet_w18_small xcit_nano_12_p16_224 pvt_v2_b0
        twins_svt_small volo_d1_224 beit_base_patch16_224 cait_xxs24_224 coat_tiny
        convmixer_768_32 tnt_s_legacy_patch16_224 visformer_tiny repvgg_a0 rexnet_100 dla34
        vovnet39a gcresnet33ts focalnet_tiny_srf gcvit_xxtiny davit_tiny inception_next_tiny
        fastvit_t8 repvit_m0_9 mvitv2_tiny res2net50_26w_4s skresnet18 resmlp_12_224 convit_tiny
        pit_ti_224 nest_tiny starnet_s1 tiny_vit_5m_224 edgenext_xx_small mobileone_s0 cspresnet50
        efficientvit_b0
        """,
    ("timm", 240): "crossvit_tiny_240",
    ("timm", 256): """
        mobilevit_xxs mobilevitv2_050 eca_nfnet_l0 halonet26t botnet26t_256 cs3darknet_s
        """,
}
ARCHITECTURES = (
    *(Architecture("tv", name) for name in SEVEN),
    *(
        Architecture(suite, name, size)
        for (suite, size), names in _NAMES.items()
        for name in names.split()
    ),
    Architecture("tv", "googlenet", arguments=_UNINITIALIZED),
    Architecture("tv", "inception_v3", 299, _UNINITIALIZED),
)

_SMALL = (("min_size", 320), ("max_size", 320))  # of the image that the network sees
_REST = {
    ("tv", 224): """
        convnext_small convnext_base convnext_large densenet161 densenet169 densenet201
        efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
        efficientnet_b6 efficientnet_b7 efficientnet_v2_m efficientnet_v2_l mnasnet0_5 mnasnet0_75
        mnasnet1_3 regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf
        regnet_x_32gf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf
        regnet_y_32gf regnet_y_128gf resnet34 resnet101 resnet152 resnext101_32x8d
        resnext101_64x4d shufflenet_v2_x0_5 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0
        swin_s swin_b swin_v2_s swin_v2_b vgg11 vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn
        vit_l_16 vit_l_32 vit_h_14 wide_resnet101_2
        """,
    ("seg", 224): "deeplabv3_resnet50 deeplabv3_resnet101 fcn_resnet101",
    ("det", 320): """
        fasterrcnn_mobilenet_v3_large_320_fpn fasterrcnn_mobilenet_v3_large_fpn
        fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2 fcos_resnet50_fpn
        keypointrcnn_resnet50_fpn maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2
        retinanet_resnet50_fpn retinanet_resnet50_fpn_v2 ssd300_vgg16 ssdlite320_mobilenet_v3_large
        """,
}
REST = tuple(
    Architecture(suite, name, size, () if suite != "det" or name.startswith("ssd") else _SMALL)
    for (suite, size), names in _REST.items()
    for name in names.split()
)
"""The other models of torchvision. Detectors take one image [3, H, W] of any size."""
