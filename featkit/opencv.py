"""The one import of OpenCV: a failure says what to install, and its own log stays off stderr."""

from featkit.errors import DependencyError

try:
    import cv2
except ImportError as error:
    if "libGL" in str(error) or "libgthread" in str(error) or "libglib" in str(error):
        raise DependencyError(
            f"OpenCV does not load on this machine: {error}",
            hint="install the system libraries it links to, on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0",
        ) from error
    raise DependencyError(f"OpenCV does not load: {error}", hint="pip install opencv-python") from error

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

__all__ = ["cv2"]
