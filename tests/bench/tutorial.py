"""The matching script that tutorials show, as one process: python tutorial.py A B OUT."""

import sys

import cv2
import numpy as np

a, b, out = sys.argv[1:]
gray_a, gray_b = cv2.imread(a, cv2.IMREAD_GRAYSCALE), cv2.imread(b, cv2.IMREAD_GRAYSCALE)
sift = cv2.SIFT.create()
keypoints_a, descriptors_a = sift.detectAndCompute(gray_a, None)
keypoints_b, descriptors_b = sift.detectAndCompute(gray_b, None)
nearest = cv2.BFMatcher().knnMatch(descriptors_a, descriptors_b, k=2)
good = [first for first, second in nearest if first.distance < 0.75 * second.distance]
source = np.array([keypoints_a[match.queryIdx].pt for match in good], np.float32)
target = np.array([keypoints_b[match.trainIdx].pt for match in good], np.float32)
matrix, mask = cv2.findHomography(source, target, cv2.RANSAC, 5.0)
drawn = cv2.drawMatches(
    cv2.imread(a), keypoints_a, cv2.imread(b), keypoints_b, good, None, matchesMask=mask.ravel().tolist(), flags=2
)
cv2.imwrite(out, drawn)
print(matrix)
