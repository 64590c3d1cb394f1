"""What the page says about each column, by the title of its sweep, and about each entry that is learned."""

INTRODUCTION = (
    "Everything that an augmentation does to a photo stands in one row of 16 float32 numbers: <code>params</code> is "
    "[views, batch, 16]. <code>sample_params</code> draws the rows, <code>augment</code> makes the views from them, "
    "and who has the row can repeat the view, change it, or learn from it. Below, one column after the other moves "
    "through its values while all others stay at their identity. The lines under the tiles are the ranges that "
    "published recipes draw from; a framed value is the identity.",
    "This is the row that does nothing but resize the whole photo:",
)
PIPELINE = (
    "In order: crop and resize, round to 1/255, rotation, flip, jitter in the row's own order, gray, blur, solarize, "
    "then normalise and cast. Column 15 is 0 and reserved; with it a row has 64 bytes."
)
ORDERS = (
    "All 24 orders of brightness 0.7, contrast 1.8, saturation 1.8 and hue +0.06: their initials from first to last, "
    "and the value of the column."
)
LEARNED = {
    "pair": "One pair of views as training draws it, its two rows in full, and what the methods make of them.",
    "augself": (
        "<code>augself_targets</code>: the difference of two views, first minus second, for the pairs (1, 2) and (2, "
        "1). Heads on the features of both views regress it, so features must keep what the augmentation did."
    ),
    "cassle": (
        "<code>descriptors</code>: each view's own parameters. The projector is told them, so the features before "
        "it need not lose them. The colour shift comes from <code>augment(..., color_shift=True)</code>, out of the "
        "same pass over the pixels."
    ),
}

BOX_UNIT = "pixels of the decoded photo"
UNITS = {
    "top": BOX_UNIT,
    "left": BOX_UNIT,
    "height": BOX_UNIT,
    "width": BOX_UNIT,
    "height × width": "share of the photo's area",
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
    "top": "The first row of the crop box: a larger value looks further down.",
    "left": "The first column of the crop box: a larger value looks further right.",
    "height": (
        "The rows of the crop box. Whatever its shape, the box is resized to the square view, so a low box is "
        "stretched upwards. The filter is bilinear and widens where it shrinks (antialiasing); the result is rounded "
        "to whole 1/255, as PIL's is."
    ),
    "width": "The columns of the crop box: a narrow box is stretched sideways.",
    "height × width": (
        "Recipes draw an area and a ratio: the area evenly in the range below, width / height between 3/4 and 4/3, "
        "evenly in its logarithm. Then the place, evenly among all where the box fits. After ten boxes that do not "
        "fit comes the largest central one of an allowed ratio."
    ),
    "flip": (
        "1 mirrors left and right. The box is cut out before that, so the same four numbers always mean the same "
        "part of the photo."
    ),
    "rotation": "Turns the crop, before the flip. Quarter turns move pixels and interpolate none.",
    "jitter": (
        "Whether the next five columns apply. The two tiles have brightness 1.3, contrast 0.7, saturation 1.4 and "
        "hue +0.1 behind the switch."
    ),
    "order": (
        "In which order the next four apply: 0 brightness, 1 contrast, 2 saturation, 3 hue, the first in the lowest "
        "two bits; [int(v) >> 2 * i & 3 for i in range(4)] reads it. Order matters, because every step clips to [0, "
        "1], and contrast uses the mean of the image as it is then."
    ),
    "brightness": "v × image, clipped to [0, 1].",
    "contrast": (
        "v × image + (1 − v) × its mean luma, clipped. The mean is one number per view, taken of the image as it is "
        "at this step; at 0 nothing else is left."
    ),
    "saturation": "v × image + (1 − v) × its luma, pixel by pixel, clipped; at 0 it would be gray.",
    "hue": "Turns the hue in HSV: red at 0, green at 1/3, blue at 2/3, red again at 1. Grays stay as they are.",
    "gray": "1 replaces red, green and blue by the luma 0.2989 R + 0.587 G + 0.114 B, after the jitter.",
    "sigma": (
        "Standard deviation of a Gaussian blur, after gray: 23 taps at 224 px, borders reflected. The tiles show the "
        "middle of the view at twice its size."
    ),
    "solarize": "Inverts every value at or above the threshold (x becomes 1 − x), last of all.",
}
PLACE = "Recipes draw any whole pixel at which the box fits, all equally likely."
SIZE = "Recipes draw area and ratio instead, see below."
FACTOR = "Where jitter is on, drawn evenly from the range."
FACTS = {
    "top": PLACE,
    "left": PLACE,
    "height": SIZE,
    "width": SIZE,
    "rotation": "Not in these recipes; AugSelf's ablation: with probability 0.5 one of the four.",
    "order": "All 24 orders equally likely, for each photo and view.",
    "brightness": FACTOR,
    "contrast": FACTOR,
    "saturation": FACTOR,
    "hue": FACTOR,
    "sigma": "Then drawn evenly from the range.",
    "solarize": "AugSelf's ablation: 0.5, before gray.",
}

TARGETS = {
    "centre y": "(top + height / 2) / H, of one view minus that of the other",
    "centre x": "(left + width / 2) / W likewise, negated where the first view of the pair is flipped",
    "height": "height / H, difference",
    "width": "width / W, difference",
    "brightness": "(factor − 1) / width of its range, 0 where jitter is off, difference",
    "contrast": "likewise",
    "saturation": "likewise",
    "hue": "turns / width of the range, 0 where jitter is off, difference",
    "flip": "1 where both flips are equal, else 0",
    "sigma": 'sigma in pixels, difference; mode="fixed" divides it by the largest sigma, to stay within −1 to 1',
    "rotation": "(first − second) mod 4: one of four classes",
    "solarize": "threshold, 1 where off, difference",
}
OMEGA = {
    "sigma": "sigma in pixels, 0 = none",
    "brightness": "(factor − 1) / width of its range, −0.5 to 0.5; 0 where jitter is off",
    "contrast": "likewise",
    "saturation": "likewise",
    "hue": "turns / width of the range, −0.5 to 0.5; 0 where jitter is off",
    "red shift": "mean red of the crop before the jitter minus after it; 0 where jitter is off",
    "green shift": "mean green likewise",
    "blue shift": "mean blue likewise",
    "centre y": "(top + height / 2) / H",
    "centre x": "(left + width / 2) / W, or 1 minus that where this view is flipped",
    "height": "height / H",
    "width": "width / W",
    "flip": "0 or 1; the published command leaves it out, for 13 columns",
    "gray": "0 or 1",
}
