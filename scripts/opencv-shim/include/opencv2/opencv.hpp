// The two modules that FFCV uses; OpenCV's own file of this name includes every module there is.
#pragma once
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
