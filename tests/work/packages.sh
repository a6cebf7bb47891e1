# Packages that are here already, with their scripts.
mkdir -p "$HOME/dependency" "$HOME/project" && cd "$HOME"
echo '{ "name": "dependency", "version": "1.0.0", "scripts": { "install": "echo built > built" } }' >dependency/package.json
echo '{ "name": "project", "version": "1.0.0", "scripts": { "test": "node -p 40+2" } }' >project/package.json
(cd dependency && npm pack --silent)
cd project
npm install --silent --offline --no-audit --no-fund --no-update-notifier ../dependency/dependency-1.0.0.tgz && cat node_modules/dependency/built
npm test --silent
cd "$HOME" && mkdir wheel && /usr/bin/python3 - <<'P'
import zipfile
with zipfile.ZipFile("wheel/lab_package-1.0-py3-none-any.whl", "w") as wheel:
    info = "lab_package-1.0.dist-info"
    wheel.writestr("lab_package.py", "WORD = 'installed'\n")
    wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: lab-package\nVersion: 1.0\n")
    wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "/RECORD", "lab_package.py,,\n")
P
/usr/bin/python3 -m pip install -q --no-index --find-links wheel --target installed --no-cache-dir --disable-pip-version-check lab-package
PYTHONPATH=installed /usr/bin/python3 -c 'import lab_package; print(lab_package.WORD)'
echo done
