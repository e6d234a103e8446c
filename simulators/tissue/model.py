"""Tissue reflectance: how much oxygen does the blood in the bowel wall carry, judging by the colour of the wall?

Three layers of tissue are lit from above, and a camera measures the reflectance R in eight bands,

    y = log R(theta) + noise / SNR,        noise ~ N(0, I_8).

Absorption of a layer is that of its blood, mu_a = v_hb [sO2 mu_HbO2 + (1 - sO2) mu_Hb]; its reduced scattering is
mu_s' = a_mie (lambda / 500 nm)^-1.286 (Jacques 2013, Phys. Med. Biol. 58:R37, eq. 2), and mu_s = mu_s' / (1 - g) with
the phase function of Henyey and Greenstein. R is the light that leaves the top after scattering, without the specular
reflection, for a normal beam and air above and below.

The model, its bands and its priors are those of the in-silico colon tissue of Wirkert et al. 2016, Robust near
real-time estimation of physiological parameters from megapixel multispectral images with inverse Monte Carlo and random
forest regression, IJCARS 11:909; the 13 parameters are those of the medical task of Ardizzone et al. 2019,
arXiv:1808.04730.
Differences, on purpose:

* adding-doubling in place of Monte Carlo on a GPU; its error with 12 points, 0.12 % (rms), is below the noise of 10^6
  photons;
* one refractive index for all layers (there the third had 1.38, which moves R by less than that noise);
* the normal prior of a_mie is truncated at 0.1 1/cm, not clipped at 0: clipping puts 3 % of all layers on one value;
* the camera's noise, there R (1 + noise / SNR), is Gaussian in log R, so that likelihood and posterior are exact, and
  log R is not normalised by its sum over the bands, which would make its eight numbers dependent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Uniform

from posterior_bench import Differentiable, HasLikelihood, HasNoise, HasReference, Parameter, Simulator, Spec
from posterior_bench.priors import Product, TruncatedNormal
from posterior_bench.runtime import cached, scope, seed_for

from .adding_doubling import fluxes
from .haemoglobin import blood_absorption

BANDS_NM = (580, 470, 660, 560, 480, 511, 600, 700)
"""Centres of the camera's bands, in the order of recording. Each is a rectangular window of 10 nm."""

TWO_NODES_NM = (560, 580, 600)
"""Bands over which the absorption bends: two Gauss nodes there, the centre elsewhere. Against an integral in steps of
1 nm the error of R is then 0.1, 0.1 and 0.65 % (rms) in these bands and up to 1 % in the others."""

A_MIE_LOW = 0.1
"""Lower edge of the prior of a_mie in 1/cm."""

THICKNESS_MM = ((0.600, 1.010), (0.415, 0.847), (0.395, 0.603))
"""Ranges of the thickness of the three layers, in mm."""

MIE_POWER = 1.286
LAYERS = 3
BLOCK = 2**22
"""Most entries of a table of bank draws x measurements; 32 MiB in float64."""


@dataclass(frozen=True)
class Tissue(Simulator, HasLikelihood, HasNoise, HasReference, Differentiable):
    """The Wirkert 2016 colon model with adding-doubling; see the module's docstring for formulas and sources.

    Gradients cost memory: about 2 MB a tissue while the graph is kept.

    Args:
        snr: signal-to-noise ratio of a band; the noise of log R has the standard deviation 1 / snr.
        quadrature_points: directions per hemisphere; multiples of 4 are the accurate ones.
        haemoglobin_g_per_l: haemoglobin in a litre of blood. It only rescales v_hb; later work of the same group
            has 150.
        refractive_index: of all layers.
        reference_bank: draws of the prior on which the reference posterior rests, each simulated once (11 reflectances)
            and then used for all measurements and every ``snr``.
    """

    snr: float = 10.0
    quadrature_points: int = 12
    haemoglobin_g_per_l: float = 120.0
    refractive_index: float = 1.36
    reference_bank: int = 100_000

    def __post_init__(self) -> None:
        for name in ("snr", "haemoglobin_g_per_l", "reference_bank"):
            if not getattr(self, name) > 0:
                raise ValueError(f"found {name} = {getattr(self, name)}; expected a positive number")

    @property
    def spec(self) -> Spec:
        """Oxygenation, then four parameters a layer from the top down; one number a band."""
        layers = [
            (
                Parameter(f"v_hb{i}", symbol=rf"v_{{\mathrm{{Hb}},{i}}}"),
                Parameter(f"a_mie{i}", "1/cm", rf"a_{{\mathrm{{Mie}},{i}}}"),
                Parameter(f"g{i}", symbol=rf"g_{i}"),
                Parameter(f"d{i}", "mm", rf"d_{i}"),
            )
            for i in range(1, LAYERS + 1)
        ]
        return Spec(
            name="tissue",
            version=1,
            reference="Wirkert et al. 2016, IJCARS 11:909; Ardizzone et al. 2019, arXiv:1808.04730",
            parameters=(Parameter("sO2", symbol=r"s_{\mathrm{O}_2}"), *(p for layer in layers for p in layer)),
            y_shape=(len(BANDS_NM),),
            y_names=tuple(f"log R({band} nm)" for band in BANDS_NM),
            description="Oxygenation and structure of three layers of bowel wall from reflectance in eight colours: "
            "the Wirkert 2016 colon model with adding-doubling instead of GPU Monte Carlo",
        )

    def prior(self) -> Distribution:
        """Independent parameters: uniform, but a_mie ~ N(18.9, 10.2^2) restricted to more than 0.1 1/cm."""
        marginals: list[Distribution] = [Uniform(0.0001, 1.0)]
        for thinnest, thickest in THICKNESS_MM:
            marginals += [
                Uniform(0.0001, 0.1),
                TruncatedNormal(18.9, 10.2, A_MIE_LOW),
                Uniform(0.8, 0.95),
                Uniform(thinnest, thickest),
            ]
        return Product(marginals)

    @property
    def noise_dim(self) -> int:
        """One noise variable a band."""
        return len(BANDS_NM)

    def simulate(self, theta: Tensor) -> Tensor:
        """Log reflectances (N, 8) with noise, for theta (N, 13)."""
        return self.simulate_from(
            theta, torch.randn(len(theta), self.noise_dim, dtype=theta.dtype, device=theta.device)
        )

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Log reflectances (N, 8) for theta (N, 13) and noise (N, 8)."""
        return (self.log_reflectance(theta) + noise / self.snr).to(theta.dtype)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log N(y; log R(theta), I / snr^2), (N,); -inf where the simulation fails, since it gives no measurement."""
        mean = self.log_reflectance(theta)
        failed = mean.isnan().any(-1)
        residual = (y - torch.where(failed[:, None], 0.0, mean)) * self.snr
        value = -0.5 * residual.square().sum(-1) + self.noise_dim * (log(self.snr) - 0.5 * log(2 * pi))
        return torch.where(failed, -torch.inf, value).to(theta.dtype)

    def log_reflectance(self, theta: Tensor) -> Tensor:
        """Log reflectance without noise, (N, 8) in float64, for theta (N, 13); a row of NaN where it cannot be had."""
        if theta.ndim != 2 or theta.shape[1] != 1 + 4 * LAYERS:
            raise ValueError(f"theta has shape {tuple(theta.shape)}; expected (N, {1 + 4 * LAYERS})")
        theta = theta.double()
        nodes, average = _camera()
        oxygenated, deoxygenated = (
            theta.new_tensor(part)[:, None] for part in blood_absorption(nodes, self.haemoglobin_g_per_l)
        )
        oxygenation = theta[:, 0, None, None]
        layers = theta[:, None, 1:].unflatten(-1, (LAYERS, 4))  # (N, 1, 3, 4): against the nodes
        blood, amplitude, anisotropy, thickness_mm = layers.unbind(-1)
        absorption = blood * (oxygenation * oxygenated + (1 - oxygenation) * deoxygenated)  # (N, nodes, 3), in 1/cm
        scattering = amplitude * theta.new_tensor((nodes / 500) ** -MIE_POWER)[:, None] / (1 - anisotropy)
        extinction = absorption + scattering
        reflectance = fluxes(
            (scattering / extinction).flatten(0, 1),
            (extinction * thickness_mm / 10).flatten(0, 1),
            anisotropy.expand_as(extinction).flatten(0, 1),
            self.refractive_index,
            self.quadrature_points,
        ).diffuse_reflectance
        bands = reflectance.unflatten(0, (len(theta), len(nodes))) @ theta.new_tensor(average)
        return torch.where((bands > 0).all(-1, keepdim=True), bands, torch.nan).log()

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, 13) by importance sampling: the bank's prior draws, with replacement, weighted by likelihood.

        Self-normalised, so exact in the limit of a large bank alone; ``reference_effective_size`` tells how close. At
        SNR 10 its median over measurements is 0.8 % of the bank, and 5 % of them have less than 0.05 %: dark tissue,
        of little scattering, tells most. Too few effective draws make a posterior look too narrow: coverage falls
        short by about 0.9 % (mean over levels) with a bank of 30,000 and by 0.2 % with 120,000.

        A draw of the bank can appear several times: at an effective size of 800, 500 draws hold some 300 different
        ones. And all measurements share the bank, hence their references are dependent: averages over measurements
        have a part of the error in common, which further measurements do not lower, but a larger bank does.

        A measurement that is not finite has draws of NaN.
        """
        bank = self._bank()["theta"].to(y)

        def draw(weights: Tensor) -> Tensor:
            usable = weights.isfinite().all(-1, keepdim=True)
            index = torch.multinomial(torch.where(usable, weights, 1.0), n, replacement=True)
            return torch.where(usable[..., None], bank[index], torch.nan)

        return self._over_bank(y, draw).transpose(0, 1).contiguous()

    def reference_effective_size(self, y: Tensor) -> Tensor:
        """Effective number of bank draws, (sum w)^2 / sum w^2, behind the reference of each measurement: (B,)."""
        return self._over_bank(y, lambda weights: weights.sum(-1) ** 2 / weights.square().sum(-1)).to(y.dtype)

    def _over_bank(self, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of the importance weights (b, bank), largest 1, a few measurements at a time."""
        centre = self._bank()["log_reflectance"].to(y.device)
        parts = y.double().split(max(1, BLOCK // len(centre)))
        return torch.cat([function(self._weights(part, centre)) for part in parts])

    def _weights(self, y: Tensor, centre: Tensor) -> Tensor:
        """exp(-|y - log R|^2 snr^2 / 2) up to a factor a row; |y|^2 is such a factor. Failed simulations weigh 0."""
        exponent = self.snr**2 * torch.addmm(-0.5 * centre.square().sum(-1), y, centre.mT)
        exponent = torch.where(centre.isnan().any(-1), -torch.inf, exponent)
        return (exponent - exponent.amax(-1, keepdim=True)).exp()

    def _bank(self) -> dict[str, Tensor]:
        """Prior draws and their log reflectances, float64; without noise, so the same for every ``snr``."""
        options = (self.quadrature_points, self.haemoglobin_g_per_l, self.refractive_index, self.reference_bank)
        key = f"tissue {self.spec.version}: prior draws and log reflectance for {options}"

        def make() -> dict[str, Tensor]:
            with scope(seed_for(key), dtype=torch.float64), torch.no_grad():
                theta = self.prior().sample((self.reference_bank,))
                return {"theta": theta, "log_reflectance": self.log_reflectance(theta)}

        return cached(key, make)


def _camera() -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths (K,) in nm at which the bands are sampled, and what each adds to the bands: (K, 8)."""
    offset = 5 / sqrt(3)  # two Gauss nodes of a window of half width 5 nm
    nodes, columns = [], []
    for column, band in enumerate(BANDS_NM):
        here = [band - offset, band + offset] if band in TWO_NODES_NM else [float(band)]
        nodes += here
        columns += [np.eye(len(BANDS_NM))[column] / len(here)] * len(here)
    return np.array(nodes), np.array(columns)
