"""Every change of axis order, named once. B groups, C patterns per group, N × N pixels, H × W canvas.

numpy arrays that cross the engine door are channels-last, `b h w c`; kernels are `(kh, kw, in, out)`.
"""

BHWC_TO_BCHW = "b h w c -> b c h w"
BCHW_TO_BHWC = "b c h w -> b h w c"
BHWC_TO_FRAMES = "b h w c -> (b c) h w 1"
FRAMES_TO_BCHW = "(b c) h w 1 -> b c h w"
HWIO_TO_OIHW = "h w i o -> o i h w"
OIHW_TO_HWIO = "o i h w -> h w i o"
OFFSETS_TO_XY = "b 1 xy c -> xy b c"
FRAMES_TO_BHWC = "(b c) h w -> b h w c"
BHWC_TO_PATCHES = "b h w c -> (b c) h w"
ALONE_LAST_TO_BHWC = "(b c) h w 1 -> b h w c"
BCHW_TO_ALONE_FIRST = "b c h w -> (b c) 1 h w"
ALONE_FIRST_TO_BCHW = "(b c) 1 h w -> b c h w"
BCXY_TO_OFFSETS = "b c xy -> b 1 xy c"
