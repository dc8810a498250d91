"""What Ptychodus needs of Lightning for its PtychoPINN-Torch library: a base class of callbacks, and no more.

It is left out where Lightning itself is installed, and Lightning installed later replaces it file by file.
"""
