# Certificates for tests of TLS, made by GnuTLS' certtool.
import subprocess


def certtool(*arguments):
    done = subprocess.run(["certtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"certtool {' '.join(arguments)}: {done.stderr}"


def certificate(rig, name, signer, *template):
    """name-key.pem and name-cert.pem, signed by the signer's, or by itself."""
    key, cert, text = (rig.path(name + end) for end in ("-key.pem", "-cert.pem", ".template"))
    with open(text, "w", encoding="utf-8") as f:
        f.write("\n".join((f'cn = "{name}"', "expiration_days = 3", *template)) + "\n")
    certtool("--generate-privkey", "--key-type=ecdsa", "--outfile", key)
    how = ["--generate-certificate", "--load-ca-privkey", rig.path(signer + "-key.pem"), "--load-ca-certificate",
           rig.path(signer + "-cert.pem")] if signer else ["--generate-self-signed"]
    certtool(*how, "--template", text, "--load-privkey", key, "--outfile", cert)
    return cert, key
