"""The texts about each column, by the title of its sweep, and about each target and descriptor."""

INTRODUCTION = (
    "One row of 16 float32 numbers describes everything that an augmentation does to a photo: <code>params</code> is "
    "[views, batch, 16]. <code>sample_params</code> draws the rows and <code>augment</code> makes the views from them. "
    "With its row, a view can be repeated, changed, or used as a target. Below, one column at a time moves through its "
    "values while all others stay at their identity. The lines under the tiles are the ranges that published recipes "
    "draw from; a framed value is the identity.",
    "This row only resizes the whole photo:",
)
PIPELINE = (
    "In order: crop and resize, round to 1/255, rotation, flip, jitter in the row's own order, gray, blur, solarize, "
    "then normalise and cast. Column 15 is reserved and 0; it makes a row 64 bytes long."
)
ORDERS = (
    "All 24 orders of brightness 0.7, contrast 1.8, saturation 1.8 and hue +0.06: their initials from first to last, "
    "and the value of the column."
)
LEARNED = {
    "pair": "One pair of views as in training, its two rows in full, and the targets and conditions made from them.",
    "augself": (
        "<code>augself_targets</code>: the difference of two views, first minus second, for the pairs (1, 2) and (2, "
        "1). Heads on the features of both views regress it, so the features must retain the augmentation."
    ),
    "cassle": (
        "<code>descriptors</code>: the parameters of each view. The projector is conditioned on them, so the features "
        "need not discard them. The colour shift comes from <code>augment(..., color_shift=True)</code>, in the same "
        "pass over the pixels."
    ),
}

BOX_UNIT = "pixels of the decoded photo"
UNITS = {
    "top": BOX_UNIT,
    "left": BOX_UNIT,
    "height": BOX_UNIT,
    "width": BOX_UNIT,
    "height × width": "fraction of the photo's area",
    "flip": "0 or 1",
    "rotation": "quarter turns, counter-clockwise",
    "jitter": "0 or 1",
    "order": "four 2-bit op ids in one whole number",
    "brightness": "factor",
    "contrast": "factor",
    "saturation": "factor",
    "hue": "turns, −0.5 to 0.5",
    "gray": "0 or 1",
    "sigma": "pixels of the view, 0 = off",
    "solarize": "threshold in [0, 1], 2 = off",
}
TEXTS = {
    "top": "The first row of the crop box: a larger value moves the box down.",
    "left": "The first column of the crop box: a larger value moves the box right.",
    "height": (
        "The number of rows of the crop box. The box is resized to the square view, so a low box is stretched "
        "vertically. The filter is bilinear, antialiased when it shrinks; the result is rounded to multiples of 1/255, "
        "as in PIL."
    ),
    "width": "The number of columns of the crop box: a narrow box is stretched horizontally.",
    "height × width": (
        "Recipes draw the area uniformly from the range below, and width / height log-uniformly from 3/4 to 4/3. Then "
        "they draw the position uniformly. After ten boxes that do not fit, they use the largest central box of an "
        "allowed ratio."
    ),
    "flip": ("1 mirrors left and right, after cropping: the same four numbers always mean the same part of the photo."),
    "rotation": "Rotates the crop, before the flip. Quarter turns need no interpolation.",
    "jitter": (
        "Whether the next five columns apply. The two tiles have brightness 1.3, contrast 0.7, saturation 1.4 and "
        "hue +0.1."
    ),
    "order": (
        "The order of the next four: 0 brightness, 1 contrast, 2 saturation, 3 hue, the first in the lowest two bits; "
        "[int(v) >> 2 * i & 3 for i in range(4)] decodes it. Order matters, because every step clips to [0, 1], and "
        "contrast uses the mean of the image at that step."
    ),
    "brightness": "v × image, clipped to [0, 1].",
    "contrast": (
        "v × image + (1 − v) × its mean luma, clipped. The mean is one number per view, of the image at this step; at "
        "0 the view is constant."
    ),
    "saturation": "v × image + (1 − v) × its luma, pixel by pixel, clipped; 0 would give gray.",
    "hue": "Turns the hue in HSV: red at 0, green at 1/3, blue at 2/3, red again at 1. Gray pixels do not change.",
    "gray": "1 replaces all channels by the luma 0.2989 R + 0.587 G + 0.114 B, after the jitter.",
    "sigma": (
        "Standard deviation of a Gaussian blur, after gray: 23 taps at 224 px, borders reflected. The tiles show the "
        "middle of the view at twice its size."
    ),
    "solarize": "Inverts every value at or above the threshold (x becomes 1 − x), as the last operation.",
}
PLACE = "Recipes draw a whole pixel uniformly among those where the box fits."
SIZE = "Recipes draw area and ratio instead, see below."
FACTOR = "If jitter is on, drawn uniformly from the range."
FACTS = {
    "top": PLACE,
    "left": PLACE,
    "height": SIZE,
    "width": SIZE,
    "rotation": "Not in these recipes; AugSelf's ablation draws one of the four with probability 0.5.",
    "order": "All 24 orders are equally likely, for each photo and view.",
    "brightness": FACTOR,
    "contrast": FACTOR,
    "saturation": FACTOR,
    "hue": FACTOR,
    "sigma": "Then drawn uniformly from the range.",
    "solarize": "AugSelf's ablation: probability 0.5, before gray.",
}

TARGETS = {
    "centre y": "(top + height / 2) / H, first view minus second",
    "centre x": "(left + width / 2) / W likewise, negated if the first view is flipped",
    "height": "height / H, difference",
    "width": "width / W, difference",
    "brightness": "(factor − 1) / width of its range, 0 if jitter is off, difference",
    "contrast": "likewise",
    "saturation": "likewise",
    "hue": "turns / width of the range, 0 if jitter is off, difference",
    "flip": "1 if both flips are equal, else 0",
    "sigma": 'sigma in pixels, difference; mode="fixed" divides it by the largest sigma, to a range of −1 to 1',
    "rotation": "(first − second) mod 4, each negated where its view is flipped: one of four classes",
    "solarize": "threshold (1 if off), difference",
}
DESCRIPTOR_TEXTS = {  # of CASSLE's condition, omega in the paper
    "sigma": "sigma in pixels, 0 = none",
    "brightness": "(factor − 1) / width of its range, −0.5 to 0.5; 0 if jitter is off",
    "contrast": "likewise",
    "saturation": "likewise",
    "hue": "turns / width of the range, −0.5 to 0.5; 0 if jitter is off",
    "red shift": "mean red of the crop before the jitter minus after it; 0 if jitter is off",
    "green shift": "mean green likewise",
    "blue shift": "mean blue likewise",
    "centre y": "(top + height / 2) / H",
    "centre x": "(left + width / 2) / W, or 1 minus that if this view is flipped",
    "height": "height / H",
    "width": "width / W",
    "flip": "0 or 1; the published command leaves it out, for 13 columns",
    "gray": "0 or 1",
}
